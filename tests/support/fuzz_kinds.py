"""All kinds of input that `fuzzing` tries."""

from __future__ import annotations

from pathlib import Path

from frieze.renderer.spec.render_spec import RenderSpec
from support.drawing import draw
from support.fuzz_environment import on_environment, variables
from support.fuzz_files import batch_texts, on_batch, on_preset, yaml_texts
from support.fuzz_loras import files, on_lora
from support.fuzz_media import edits, on_edit, on_file, on_profile, profile_bytes
from support.fuzz_media import files as media_files
from support.fuzz_models import folders, on_drawing, on_folder, on_prompt
from support.fuzz_networks import configs, on_config, on_training, trainings
from support.fuzz_outputs import bodies, exports, on_body, on_export
from support.fuzz_specs import act_on_spec, methods, specs
from support.fuzz_stores import files as store_files
from support.fuzz_stores import on_resume, on_store
from support.fuzz_words import STORE, act_on_words, words
from support.fuzzing import Kind

# One of each kind of tokenizer, and of each kind of network.
READ = ("flux", "sd15", "qwen", "flux2")
DRAWN = ("flux", "sd15", "wan22-small")
NAMES = (
    "fields of a spec",
    "methods and options",
    "words of the command line",
    "YAML presets",
    "batch files",
    "configs of model folders",
    "files of tokenizers",
    "models that are drawn with",
    "LoRA files",
    "variables of the environment",
    "pictures and clips",
    "ICC profiles",
    "masks, places and control pictures",
    "files of stores",
    "stores that are gone on with",
    "exports and their options",
    "bodies of requests",
    "ControlNets and decoders",
    "data of LoRA trainings",
)


def kinds(folder: Path) -> list[Kind]:
    """The kinds; what they name lies in the folder."""
    draw(folder / STORE, num_inference_steps=1)
    (folder / "jobs.yaml").write_text("- {prompt: a red sun, size: 64x64}")
    return [
        Kind("fields of a spec", specs(), act_on_spec),
        Kind("methods and options", methods(), act_on_spec),
        Kind("words of the command line", words(), act_on_words),
        Kind("YAML presets", yaml_texts(list(RenderSpec.model_fields)), on_preset(folder)),
        Kind("batch files", batch_texts(), on_batch(folder)),
        Kind("configs of model folders", folders(folder), on_folder(folder)),
        Kind("files of tokenizers", folders(folder, READ, tokenizers=True), on_prompt(folder), 10),
        Kind("models that are drawn with", folders(folder, DRAWN), on_drawing(folder), 16),
        Kind("LoRA files", files(), on_lora(folder)),
        Kind("variables of the environment", variables(), on_environment),
        Kind("pictures and clips", media_files(), on_file(folder)),
        Kind("ICC profiles", profile_bytes(), on_profile(folder)),
        Kind("masks, places and control pictures", edits(), on_edit(folder)),
        Kind("files of stores", store_files(folder), on_store(folder), 4),
        Kind("stores that are gone on with", store_files(folder), on_resume(folder), 16),
        Kind("exports and their options", exports(), on_export(folder)),
        Kind("bodies of requests", bodies(), on_body(folder)),
        Kind("ControlNets and decoders", configs(folder), on_config(folder)),
        Kind("data of LoRA trainings", trainings(), on_training(folder)),
    ]
