"""Parts of a checkpoint, loaded by diffusers and transformers: safetensors only, one folder only.

Weights are mapped, not read: where the file's precision is the one asked for and the device is the
CPU, all processes of a node share one copy of the file in the page cache; on another device or in
another precision, the file is still read from disk once a node, and each process holds its own
converted copy.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from frieze.cluster.thread_value import ThreadValue

from ..checkpoints import lora
from ..checkpoints.configs import Upcast, index_of, read
from ..checkpoints.weight_files import check_part, check_parts
from ..errors import ModelError
from ..files.library_errors import as_model_error
from ..spec.networks import has_stage_loras, loras_of_all
from . import finite, lora_loading, meta_models, quantization, truncation
from .imports import uncollected

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..checkpoints.facts import ModelFacts
    from ..spec.render_spec import RenderSpec

# What a prompt does not need.
DRAWING = ("transformer", "transformer_2", "unet", "vae", "image_encoder", "safety_checker")
# from_pretrained changes torch's default type and parameter registry for the time it runs.
_ONE_AT_A_TIME = threading.Lock()
# Pipelines that `kept_encoders` keeps in this thread, by what decides their weights.
_kept: ThreadValue[dict[tuple[object, ...], Any]] = ThreadValue("kept encoders")


def dtype_of(name: str) -> torch.dtype:
    """torch's type for the spec's name of a precision."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def component(
    kind: type,
    facts: ModelFacts,
    subfolder: str,
    spec: RenderSpec,
    *,
    denoiser: bool = False,
    **options: Any,
) -> Any:
    """One part of a model on the CPU in eval mode, in `spec.dtype` unless `options` say otherwise.

    `options` go to the part's `from_pretrained`. With `denoiser` the spec's `quantization` and
    `storage_dtype` are applied; where nothing is denoised it is not loaded, for nothing asks it.
    Raises `ModelError` for what is missing, corrupt or foreign.
    """
    folder = Path(facts.folder) / subfolder
    check_part(folder)
    options = {"dtype": dtype_of(spec.dtype), **options}
    if denoiser and not spec.denoises and not meta_models.wanted():
        return meta_models.absent(kind, folder, spec)
    if meta_models.wanted():
        return meta_models.build(kind, folder, spec, options["dtype"], denoiser)
    if denoiser:
        options |= quantization.options(spec, folder)
    options |= variant_option(folder, Path(facts.folder), spec.variant)
    module, info = _loaded(kind, folder, output_loading_info=True, **options)
    missing = sorted(info["missing_keys"]) if not quantization.is_quantized(module) else []
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} weights, {missing[0]} first; fetch the model anew"
        )
    finite.check_weights(module, folder)
    if denoiser and spec.storage_dtype:
        quantization.store_as(module, spec.storage_dtype, compute=options["dtype"])
    return module.eval()


def autoencoder(kind: str, facts: ModelFacts, spec: RenderSpec) -> Any:
    """The autoencoder of a model, of that class of diffusers, on the CPU in `spec.dtype`."""
    import diffusers

    libraries(facts)
    return component(getattr(diffusers, kind), facts, "vae", spec)


def vae_dtype(facts: ModelFacts, spec: RenderSpec) -> torch.dtype:
    """The precision of an autoencoder: `spec.dtype`, but float32 for one that overflows float16.

    Its config says so by `force_upcast`, as diffusers' pipelines of SDXL take it.
    """
    config = read(Upcast, Path(facts.folder) / "vae" / "config.json")
    upcast = spec.dtype == "float16" and config.force_upcast
    return torch.float32 if upcast else dtype_of(spec.dtype)


def text_pipeline(kind: type, facts: ModelFacts, spec: RenderSpec, **components: Any) -> Any:
    """The pipeline with what encodes a prompt, LoRAs included, and without what draws, on the CPU.

    `components` replace parts or, as None, leave them out; an encoder that the model's index
    lists as [null, null] stays None. Raises `ModelError`.
    """
    key = (kind, facts.folder, spec.dtype, spec.variant, spec.lora, frozenset(components))
    kept = _kept.get()
    if kept is None or key not in kept:
        pipeline = _text_pipeline(kind, facts, spec, components)
        if kept is None:
            return pipeline
        kept[key] = pipeline
    return kept[key]


def kept_encoders() -> AbstractContextManager[None]:
    """Within this, what encodes a prompt is loaded once for all prompts of a model.

    Inside another of its kind that one goes on.
    """
    kept = _kept.get()
    return _kept.set({} if kept is None else kept)


def _text_pipeline(
    kind: type, facts: ModelFacts, spec: RenderSpec, components: Mapping[str, Any]
) -> Any:
    folder = Path(facts.folder)
    index = index_of(folder)
    check_parts(folder, index)
    absent = [name for name in index.parts if not index.has(name)]
    left_out = dict.fromkeys([*absent, *(name for name in DRAWING if name in index.parts)])
    parts = {**left_out, **components}
    # A pipeline looks for the variant part by part, and takes the plain files where it has none.
    variant = variant_option(folder, folder, spec.variant)
    pipeline = _loaded(kind, folder, dtype=dtype_of(spec.dtype), **variant, **parts)
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module) and name not in components:
            finite.check_weights(part, folder / name)
        if name.startswith("tokenizer") and part is not None:
            truncation.check_vocabulary(part, folder / name)
            truncation.tell(getattr(part, "tokenizer", part), name)
    lora_loading.add_to_encoders(pipeline, spec.lora, folder)
    return pipeline


def add_loras(
    denoiser: Any,
    pipeline_class: type,
    facts: ModelFacts,
    spec: RenderSpec,
    *,
    second: bool = False,
) -> None:
    """Applies the spec's LoRA files to a denoiser as the pipeline's `load_lora_weights` would.

    A `second` denoiser has files of its own. They are added to the weights, which costs a step
    nothing; quantised and float8 weights, which would lose them in rounding, keep them beside.
    Those of stages are looked at, and applied when these begin (`AppliedLoras`).
    Raises `ModelError` for a file that does not fit, or of which anything would be left out.
    """
    own, every = spec.lora_2 if second else spec.lora, loras_of_all(spec, second=second)
    if not every:
        return
    lora.check(every, facts)
    quiet()
    fused = not spec.storage_dtype and not quantization.is_quantized(denoiser)
    if meta_models.wanted():
        lora_loading.check(denoiser, pipeline_class, every, Path(facts.folder))
        if has_stage_loras(spec) and fused and not spec.quantization:
            changed = lora_loading.changed_weights(denoiser, pipeline_class, every)
            meta_models.keep(denoiser, changed)
        return
    here = lora_loading.AppliedLoras(denoiser, pipeline_class, second, fused)
    if has_stage_loras(spec):
        here.keep(every)
        lora_loading.note(here)
    here.apply(own)


def variant_option(folder: Path, model: Path, variant: str | None) -> dict[str, str]:
    """The option for a variant where `folder` has its weights; a variant nobody has is refused."""
    if variant is None:
        return {}
    pattern = f"*.{variant}[.-]*safetensors"
    if not any(model.rglob(pattern)):
        raise ModelError(f"{model} holds no {variant!r} weights; drop --variant, or fetch them")
    return {"variant": variant} if any(folder.rglob(pattern)) else {}


def on_meta(
    name: str, folder: Path, **options: Any
) -> tuple[torch.nn.Module, dict[str, Any]] | None:
    """A part of one of transformers' classes without its weights, and what its loader says of them.

    None where that is no class of networks.
    """
    import transformers

    kind: Any = getattr(transformers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        return None
    options |= {"device_map": "meta", "output_loading_info": True}
    module, info = _loaded(kind, folder, ignore_mismatched_sizes=True, **options)
    return module, info


def _loaded(kind: type, folder: Path, **options: Any) -> Any:
    """from_pretrained, safetensors only and from this folder only; failures become `ModelError`."""
    quiet()
    load: Callable[..., Any] = kind.from_pretrained  # type: ignore[attr-defined]
    with as_model_error(folder, "be loaded"), _ONE_AT_A_TIME:
        return load(str(folder), use_safetensors=True, local_files_only=True, **options)


def libraries(facts: ModelFacts) -> None:
    """Import what the pipeline of a model is made of, and quiet it."""
    with uncollected():
        import diffusers

        quiet()  # first: imports have notes too, of a processor without torchvision for one
        getattr(diffusers, facts.pipeline, None)  # its modules are imported when they are asked for


def quiet() -> None:
    """The driver shows progress; the libraries' own bars and notes would tear it."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
