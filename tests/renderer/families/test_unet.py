"""The Stable Diffusion UNets: what they are told of the picture, and bands at every stride.

Whole renders against diffusers are in test_contract.py.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from frieze.cluster.bands import BandMode
from frieze.cluster.comm import solo
from frieze.cluster.layout import Band, Canvas
from frieze.renderer import ModelError
from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.checkpoints.scheduler_config import read_schedule
from frieze.renderer.families import unet
from frieze.renderer.models.family import BandPlace, Guidance
from frieze.renderer.models.positions import trained
from frieze.renderer.sampling.noise_levels import x0_from
from frieze.renderer.sampling.schedule_table import table
from support import denoising
from support.denoising import CPU, LEVEL, Studio, distance, latents, noise, whole
from tolerances import CASTS_TO_FLOAT32, CONTROL, EXACT_FLOAT32

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
LAYOUTS = ["sd15", "sd21", "sdxl"]
CANVAS = Canvas(1, 20, 12)
CUTS = [(Band(0, 12), Band(12, 20)), (Band(0, 4), Band(4, 16), Band(16, 20))]


@pytest.fixture(scope="module")
def studios(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Studio]:
    return {name: Studio.of(name, tmp_path_factory.mktemp(name)) for name in LAYOUTS}


def text(studio: Studio, num_tokens: int = 77) -> dict[str, torch.Tensor]:
    shapes = unet.text_shapes(studio.facts, denoising.spec(studio.folder))
    tensors = {name: noise(*shape, seed=2) for name, shape in shapes.items()}
    return tensors | {"embeds": tensors["embeds"][:, :num_tokens]}


def stock_x0(studio: Studio, canvas: Canvas) -> torch.Tensor:
    from diffusers import UNet2DConditionModel

    network: Any = UNet2DConditionModel.from_pretrained(studio.folder / "unet").double().eval()
    tensors, x = text(studio), latents(studio.facts, canvas)
    size = [float(canvas.height * 8), float(canvas.width * 8)]
    added = {"text_embeds": tensors.get("pooled"), "time_ids": torch.tensor([[*size, 0, 0, *size]])}
    output = network(
        x[:, :, 0],
        torch.tensor(LEVEL.timestep),
        encoder_hidden_states=tensors["embeds"],
        added_cond_kwargs=added,
    ).sample
    return x0_from(studio.facts.schedule.prediction, x, output.unsqueeze(2), LEVEL)


@pytest.mark.parametrize("name", LAYOUTS)
def test_clean_latents_are_the_stock_network_s(studios: dict[str, Studio], name: str) -> None:
    ours = denoising.denoised(studios[name], text(studios[name]), CANVAS, whole(CANVAS))
    assert distance(ours, stock_x0(studios[name], CANVAS)) <= EXACT_FLOAT32


@pytest.mark.parametrize("bands", CUTS, ids=len)
@pytest.mark.parametrize("name", LAYOUTS)
def test_bands_are_denoised_as_one(
    studios: dict[str, Studio], name: str, bands: tuple[Band, ...]
) -> None:
    studio = studios[name]
    ours = denoising.denoised(studio, text(studio), CANVAS, bands)
    expected = denoising.denoised(studio, text(studio), CANVAS, whole(CANVAS))
    assert distance(ours, expected) <= CASTS_TO_FLOAT32


@pytest.mark.parametrize("name", LAYOUTS)
def test_control_bands_without_the_mode_are_wrong(studios: dict[str, Studio], name: str) -> None:
    alone = denoising.denoised_alone(studios[name], text(studios[name]), CANVAS, CUTS[1])
    expected = denoising.denoised(studios[name], text(studios[name]), CANVAS, whole(CANVAS))
    assert distance(alone, expected) > CONTROL


def test_text_may_have_as_many_tokens_as_a_band(studios: dict[str, Studio]) -> None:
    """Three coarse rows of three cells and nine words: queries and keys are one number."""
    studio, bands = studios["sd15"], (Band(0, 12), Band(12, 20))
    tensors = text(studio, num_tokens=9)
    ours = denoising.denoised(studio, tensors, CANVAS, bands)
    expected = denoising.denoised(studio, tensors, CANVAS, whole(CANVAS))
    assert distance(ours, expected) <= CASTS_TO_FLOAT32


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_attention_is_marked(studios: dict[str, Studio], name: str) -> None:
    studio = studios[name]
    model, marks = studio.model, studio.model.denoiser_marks(LEVEL)
    assert [m.local for m in marks] == [False, True]
    marked = sorted(name for m in marks for name in m.names)
    assert marked == sorted(
        n for n, _ in model.unet.named_modules() if n.endswith((".attn1", ".attn2"))
    )
    with BandMode(solo(), whole(CANVAS), marks=marks, canvas=CANVAS):
        place = BandPlace(Band(0, CANVAS.height), CANVAS, trained)
        model.denoised(latents(studio.facts, CANVAS), LEVEL, text(studio), place, Guidance())


# ---- what SDXL is told of the picture


def test_the_size_is_the_canvas_s_on_every_band(studios: dict[str, Studio]) -> None:
    studio, told = studios["sdxl"], []
    hook = studio.model.unet.register_forward_pre_hook(
        lambda module, args, kwargs: told.append(kwargs["added_cond_kwargs"]["time_ids"]),
        with_kwargs=True,
    )
    try:
        denoising.denoised(studio, text(studio), CANVAS, CUTS[0])
    finally:
        hook.remove()
    assert [ids.tolist() for ids in told] == [[[160, 96, 0, 0, 160, 96]]] * 2


def test_sizes_beyond_float16_stay_finite(studios: dict[str, Studio]) -> None:
    place = BandPlace(Band(0, 8), Canvas(1, 10000, 8), trained)
    pooled = torch.zeros(1, 16, dtype=torch.float16)
    added = studios["sdxl"].model._added({"pooled": pooled}, place)
    assert added["time_ids"].tolist() == [[80000, 64, 0, 0, 80000, 64]]


# ---- prompts


@pytest.mark.parametrize("negative", [None, "", "grey"])
@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_prompts_are_encoded_as_in_the_stock_pipeline(
    studios: dict[str, Studio], name: str, negative: str | None
) -> None:
    from diffusers import DiffusionPipeline

    studio = studios[name]
    spec = denoising.spec(studio.folder, negative_prompt=negative)
    absent = {"safety_checker": None, "feature_extractor": None} if name == "sd15" else {}
    pipeline = DiffusionPipeline.from_pretrained(studio.folder, dtype=torch.float32, **absent)
    known = pipeline.encode_prompt(
        "a red sun",
        device=CPU,
        num_images_per_prompt=1,
        do_classifier_free_guidance=True,
        negative_prompt=negative,
    )
    halves = unet.encode(studio.facts, spec, CPU, 2).halves
    ours = [half[key] for key in halves[0] for half in halves]
    assert len(ours) == len(known)
    assert all(torch.equal(a, b) for a, b in zip(ours, known, strict=True))
    shapes = unet.text_shapes(studio.facts, spec)
    assert {key: tuple(x.shape) for key, x in halves[1].items()} == shapes
    is_zero = not halves[1]["embeds"].any()
    assert is_zero == (name == "sdxl" and negative is None)


def test_one_half_is_the_first_of_two(studios: dict[str, Studio]) -> None:
    studio = studios["sdxl"]
    spec = denoising.spec(studio.folder)
    (alone,) = unet.encode(studio.facts, spec, CPU, 1).halves
    positive, _ = unet.encode(studio.facts, spec, CPU, 2).halves
    assert alone.keys() == positive.keys()
    assert all(torch.equal(alone[key], positive[key]) for key in alone)


# ---- checkpoints


def test_facts(studios: dict[str, Studio]) -> None:
    scales = {}
    for name, studio in studios.items():
        facts = studio.facts
        assert (facts.latent.channels, facts.latent.downscale, facts.latent.patch) == (4, 8, 4)
        assert facts.training_size == 128
        scales[name] = facts.guidance.defaults["guidance_scale"]
    assert scales == {"sd15": 7.5, "sd21": 7.5, "sdxl": 5.0}
    assert [s.facts.schedule.prediction for s in studios.values()] == [
        *("epsilon", "v_prediction", "epsilon"),
    ]


def altered(
    studio: Studio, folder: Path, part: str, file: str = "config.json", **options: Any
) -> str:
    """The checkpoint with other options in one JSON file."""
    for path in studio.folder.rglob("*"):
        if path.is_file():
            target = folder / path.relative_to(studio.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    rewrite(folder / part / file, **options)
    return os.fspath(folder)


def rewrite(config: Path, **options: Any) -> None:
    """Other options in a JSON file that may be a link."""
    values = json.loads(config.read_text()) | options
    config.unlink()
    config.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("part", "option", "value"),
    [
        ("unet", "time_cond_proj_dim", 256),
        ("unet", "in_channels", 9),
        ("unet", "class_embed_type", "timestep"),
        ("unet", "addition_embed_type", "text"),
        ("vae", "latents_mean", [0.0] * 4),
    ],
)
def test_a_network_that_is_asked_in_another_way_is_refused(
    studios: dict[str, Studio], tmp_path: Path, part: str, option: str, value: Any
) -> None:
    folder = altered(studios["sd15"], tmp_path / "altered", part, **{option: value})
    with pytest.raises(ModelError, match=rf"{part}.config\.json: {option} is"):
        describe(folder)


OLD = {"_class_name": "DDIMScheduler", "steps_offset": 0, "clip_sample": True}


@pytest.mark.parametrize("scheduler", [OLD, {"steps_offset": 0}], ids=["ddim", "pndm"])
def test_old_scheduler_configs_are_mended_as_the_stock_pipeline_does(
    studios: dict[str, Studio], tmp_path: Path, scheduler: dict[str, Any]
) -> None:
    from diffusers import StableDiffusionPipeline

    file = ("scheduler", "scheduler_config.json")
    folder = altered(studios["sd15"], tmp_path / "old", *file, **scheduler)
    kind = scheduler.get("_class_name", "PNDMScheduler")
    rewrite(Path(folder) / "model_index.json", scheduler=["diffusers", kind])
    made = table(describe(folder).schedule, 4, tokens=256, training_tokens=256)
    stock = StableDiffusionPipeline.from_pretrained(folder).scheduler
    stock.set_timesteps(4)
    assert [level.timestep for level in made.levels[:-1]] == stock.timesteps.tolist()
    unmended = read_schedule(Path(folder), fixed={"clip_sample": False})
    control = table(unmended, 4, tokens=256, training_tokens=256)
    assert control.levels[0].timestep != made.levels[0].timestep


def test_the_scheduler_is_the_one_that_the_index_names(
    studios: dict[str, Studio], tmp_path: Path
) -> None:
    """Configs keep the class that they were saved from; pipelines do not ask it."""
    named = ["diffusers", "EulerDiscreteScheduler"]
    folder = altered(studios["sd15"], tmp_path / "named", "", "model_index.json", scheduler=named)
    config = json.loads((Path(folder) / "scheduler" / "scheduler_config.json").read_text())
    assert config["_class_name"] == "PNDMScheduler"
    schedule = describe(folder).schedule
    assert (schedule.solver, schedule.options["_class_name"]) == ("euler", named[1])


def test_a_scheduler_that_clips_latents_is_refused(
    studios: dict[str, Studio], tmp_path: Path
) -> None:
    file = ("scheduler", "scheduler_config.json")
    folder = altered(studios["sdxl"], tmp_path / "clips", *file, clip_sample=True)
    rewrite(Path(folder) / "model_index.json", scheduler=["diffusers", "DDIMScheduler"])
    with pytest.raises(ModelError, match="clip_sample is true"):
        describe(folder)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("upcast", [True, False])
def test_an_autoencoder_that_overflows_stays_in_float32(
    studios: dict[str, Studio], tmp_path: Path, upcast: bool, dtype: str
) -> None:
    folder = altered(studios["sdxl"], tmp_path / "altered", "vae", force_upcast=upcast)
    model = unet.load(describe(folder), denoising.spec(Path(folder), dtype=dtype), CPU)
    asked = getattr(torch, dtype)
    assert model.unet.dtype == asked
    assert model.vae.dtype == (torch.float32 if upcast else asked)
