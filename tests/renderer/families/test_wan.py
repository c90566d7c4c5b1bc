"""Wan: its experts, first frames and positions, against the stock pipelines' own parts.

What every family must hold to, whole renders against diffusers included, is in test_contract.py.
Shape suffixes: B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from checkpoints import build
from frieze.cluster.bands import BandError, BandMode, Marks
from frieze.cluster.comm import Comm, run_threads
from frieze.cluster.layout import Band, Canvas
from frieze.renderer import ModelError, RenderSpec
from frieze.renderer.families import wan
from frieze.renderer.family import Guidance, ModelFacts, Place, describe
from frieze.renderer.method import Axis, trained
from frieze.renderer.schedules import Level
from tolerances import CONTROL, EXACT_FLOAT32

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
CPU = torch.device("cpu")
HIGH, LOW = Level(950.0, 0.05, 0.95), Level(500.0, 0.5, 0.5)
CANVAS = Canvas(3, 10, 6)
CUTS = [(Band(0, 6), Band(6, 10)), (Band(0, 2), Band(2, 8), Band(8, 10))]
WHOLE = (Band(0, 10),)
Drawn = Callable[[Tensor, Place], Tensor]


class Models:
    """Checkpoints and what is loaded from them, each once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[str, Any] = {}

    def checkpoint(self, name: str) -> Path:
        """A layout of tests/checkpoints."""
        return self._once(f"folder {name}", lambda: build(name, self.folder / name))

    def facts(self, name: str) -> ModelFacts:
        return describe(str(self.checkpoint(name)))

    def spec(self, name: str, **fields: Any) -> RenderSpec:
        fixed = {"model": str(self.checkpoint(name)), "height": 80, "width": 48}
        return RenderSpec(prompt="a red sun", **({"dtype": "float32"} | fixed | fields))

    def model(self, name: str) -> wan.Wan:
        facts, spec = self.facts(name), self.spec(name)
        return self._once(f"model {name}", lambda: wan.load(facts, spec, CPU))

    def pipeline(self, name: str) -> Any:
        """The stock pipeline, whose modules nobody has changed."""
        import diffusers

        kind, folder = getattr(diffusers, self.facts(name).pipeline), self.checkpoint(name)
        load = lambda: kind.from_pretrained(folder, torch_dtype=torch.float32)  # noqa: E731
        return self._once(f"stock {name}", load)

    def _once(self, key: str, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("wan"))


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def latents() -> Tensor:
    return noise(1, 16, *(CANVAS.frames, CANVAS.height, CANVAS.width))


def first_frame(downscale: int = 8) -> Tensor:
    """Pixels of a picture over the canvas, [1, 3, 1, H, W] in [-1, 1]."""
    return noise(1, 3, 1, CANVAS.height * downscale, CANVAS.width * downscale).clamp(-1, 1)


def tensors(name: str) -> dict[str, Tensor]:
    """Conditioning as `encode` and `image_condition` give it, over the whole canvas."""
    found = {"embeds": noise(1, 512, 16, seed=2)}
    if name.endswith("i2v"):
        found["condition"] = noise(1, 20, CANVAS.frames, CANVAS.height, CANVAS.width, seed=3)
    if name == "wan-i2v":
        found["image_embeds"] = noise(1, 17, 16, seed=4)
    return found


def rows_of(values: Mapping[str, Tensor], band: Band) -> dict[str, Tensor]:
    """A band's rows of what has rows."""
    return {
        name: x[..., band.start : band.stop, :] if x.ndim == 5 else x for name, x in values.items()
    }


def largest(x: Tensor) -> float:
    return float(x.abs().max())


def distance(a: Tensor, b: Tensor) -> float:
    """Relative to the largest value of b."""
    assert a.shape == b.shape
    return largest(a - b) / largest(b)


def on_bands(
    work: Drawn, x: Tensor, bands: Sequence[Band], marks: Sequence[Marks], scale: int = 1
) -> Tensor:
    """`work` of every band of x, which has `scale` rows a latent row."""

    def rank(comm: Comm) -> Tensor:
        own = bands[comm.rank]
        rows = own.scaled(scale)
        with torch.no_grad(), BandMode(comm, bands, marks=marks, canvas=CANVAS):
            return work(x[..., rows.start : rows.stop, :], Place(own, CANVAS, trained))

    return torch.cat(run_threads(rank, len(bands)), dim=-2)


def denoised(models: Models, name: str, level: Level, bands: Sequence[Band]) -> Tensor:
    model, given = models.model(name), tensors(name)

    def work(x: Tensor, place: Place) -> Tensor:
        return model.denoised(x, level, rows_of(given, place.band), place, Guidance(5.0))

    return on_bands(work, latents(), bands, model.denoiser_marks(level))


def stock_x0(models: Models, name: str, level: Level) -> Tensor:
    """x - sigma v, with v as the stock pipeline asks for it."""
    pipeline, given, x = models.pipeline(name), tensors(name), latents()
    low = pipeline.config.boundary_ratio and level.timestep < pipeline.config.boundary_ratio * 1000
    transformer = pipeline.transformer_2 if low else pipeline.transformer
    parts = [x, given["condition"]] if "condition" in given else [x]
    tokens = CANVAS.frames * CANVAS.height * CANVAS.width // 4
    expanded = (1, tokens) if pipeline.config.expand_timesteps else (1,)
    with torch.no_grad():
        velocity = transformer(
            hidden_states=torch.cat(parts, dim=1),
            timestep=torch.full(expanded, int(level.timestep)),
            encoder_hidden_states=given["embeds"],
            encoder_hidden_states_image=given.get("image_embeds"),
        ).sample
    return x - level.sigma * velocity


LAYOUTS = ["wan", "wan22", "wan-i2v", "wan22-i2v", "wan22-small"]


@pytest.mark.parametrize("level", [HIGH, LOW], ids=["high", "low"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_clean_latents_are_the_stock_network_s(models: Models, name: str, level: Level) -> None:
    ours = denoised(models, name, level, WHOLE)
    assert distance(ours, stock_x0(models, name, level)) <= EXACT_FLOAT32


@pytest.mark.parametrize("bands", CUTS, ids=len)
@pytest.mark.parametrize("name", LAYOUTS)
def test_bands_are_denoised_as_one(models: Models, name: str, bands: tuple[Band, ...]) -> None:
    whole = denoised(models, name, LOW, WHOLE)
    assert distance(denoised(models, name, LOW, bands), whole) <= EXACT_FLOAT32


@pytest.mark.parametrize("name", LAYOUTS)
def test_bands_without_the_mode_are_wrong(models: Models, name: str) -> None:
    model, given = models.model(name), tensors(name)
    with torch.no_grad():
        parts = [
            model.denoised(
                latents()[..., band.start : band.stop, :],
                LOW,
                rows_of(given, band),
                Place(band, CANVAS, trained),
                Guidance(5.0),
            )
            for band in CUTS[1]
        ]
    assert distance(torch.cat(parts, dim=-2), denoised(models, name, LOW, WHOLE)) > CONTROL


def test_each_expert_serves_its_side_of_the_boundary(models: Models) -> None:
    model = models.model("wan22")
    edge, below = Level(875.0, 0.125, 0.875), Level(874.0, 0.126, 0.874)
    assert model.denoiser_marks(edge) == model.denoiser_marks(HIGH)
    assert model.denoiser_marks(below) == model.denoiser_marks(LOW)
    assert model.denoiser_marks(edge) != model.denoiser_marks(below)
    with pytest.raises(BandError, match="made no attention"):
        on_bands(
            lambda x, place: model.denoised(x, LOW, tensors("wan22"), place, Guidance(5.0)),
            latents(),
            WHOLE,
            model.denoiser_marks(HIGH),
        )


def test_the_second_expert_has_a_guidance_scale_of_its_own(models: Models) -> None:
    model, x = models.model("wan22"), latents()
    positive, negative = x + 1, x

    def gain(level: Level, guidance: Guidance) -> float:
        return float((model.guided(x, level, positive, negative, guidance) - x).mean())

    assert gain(HIGH, Guidance(4.0, scale_2=3.0)) == pytest.approx(4.0, abs=1e-5)
    assert gain(LOW, Guidance(4.0, scale_2=3.0)) == pytest.approx(3.0, abs=1e-5)
    assert gain(LOW, Guidance(4.0)) == pytest.approx(4.0, abs=1e-5)


def test_positions_are_asked_axis_by_axis(models: Models) -> None:
    """A method may stretch each axis; rows are the band's own."""
    asked: list[tuple[Axis, list[float]]] = []

    def stretched(axis: Axis, position_S: Tensor, sigma: float) -> Tensor:
        assert sigma == LOW.sigma
        asked.append((axis, position_S.tolist()))
        return trained(axis, position_S, sigma) / 2

    model, band = models.model("wan"), Band(4, 10)
    with torch.no_grad():
        model.denoised(
            latents()[..., 4:, :],
            LOW,
            tensors("wan"),
            Place(band, CANVAS, stretched),
            Guidance(5.0),
        )
    axes, positions = zip(*asked[:3], strict=True)
    assert [axis.name for axis in axes] == ["frame", "row", "column"]
    assert [axis.dim for axis in axes] == [8, 4, 4]
    assert [axis.length for axis in axes] == [3, 5, 3]
    assert [axis.trained for axis in axes] == [21, 52, 52]
    assert list(positions) == [[0, 1, 2], [2, 3, 4], [0, 1, 2]]


# ---- first frames


@pytest.mark.parametrize("name", ["wan-i2v", "wan22-i2v"])
def test_a_first_frame_conditions_as_in_the_stock_pipeline(models: Models, name: str) -> None:
    pipeline, model = models.pipeline(name), models.model(name)
    frame, num_frames = first_frame(), 4 * (CANVAS.frames - 1) + 1
    with torch.no_grad():
        _, stock = pipeline.prepare_latents(
            frame[:, :, 0], 1, 16, *frame.shape[-2:], num_frames, torch.float32, CPU
        )
        ours = model.image_condition(frame, Place(WHOLE[0], CANVAS, trained))
    assert list(ours) == ["condition"]
    assert distance(ours["condition"], stock) <= EXACT_FLOAT32


@pytest.mark.parametrize("bands", CUTS, ids=len)
@pytest.mark.parametrize("name", ["wan-i2v", "wan22-small"])
def test_bands_see_the_first_frame_as_one(
    models: Models, name: str, bands: tuple[Band, ...]
) -> None:
    model, downscale = models.model(name), models.facts(name).latent.downscale
    work = lambda x, place: next(iter(model.image_condition(x, place).values()))  # noqa: E731
    frame = first_frame(downscale)
    whole, parts = (
        on_bands(work, frame, cut, model.encoder_marks, scale=downscale) for cut in (WHOLE, bands)
    )
    assert distance(parts, whole) <= EXACT_FLOAT32
    rows = [band.scaled(downscale) for band in bands]
    with torch.no_grad():
        alone = [
            work(frame[..., r.start : r.stop, :], Place(band, CANVAS, trained))
            for r, band in zip(rows, bands, strict=True)
        ]
    assert distance(torch.cat(alone, dim=-2), whole) > CONTROL


def test_the_small_model_keeps_a_first_frame_at_time_0(models: Models) -> None:
    pipeline, model, x = models.pipeline("wan22-small"), models.model("wan22-small"), latents()
    place = Place(WHOLE[0], CANVAS, trained)
    with torch.no_grad():
        shown = dict(model.image_condition(first_frame(16), place))
        assert shown["first"].shape == (1, 16, 1, CANVAS.height, CANVAS.width)
        ours = model.denoised(x, LOW, tensors("wan22-small") | shown, place, Guidance(5.0))
        seen = torch.cat([shown["first"], x[:, :, 1:]], dim=2)
        told = torch.full((CANVAS.frames, CANVAS.height * CANVAS.width // 4), int(LOW.timestep))
        told[0] = 0
        velocity = pipeline.transformer(
            seen, told.flatten()[None], tensors("wan22-small")["embeds"]
        ).sample
    assert torch.equal(ours[:, :, :1], shown["first"])
    later = x[:, :, 1:] - LOW.sigma * velocity[:, :, 1:]
    assert distance(ours[:, :, 1:], later) <= EXACT_FLOAT32


# ---- prompts


def test_prompts_are_encoded_as_in_the_stock_pipeline(models: Models) -> None:
    spec = models.spec("wan", negative_prompt="grey", max_sequence_length=32)
    with torch.no_grad():
        ours = wan.encode(models.facts("wan"), spec, CPU, 2)
        stock = models.pipeline("wan").encode_prompt(
            "a red sun", "grey", max_sequence_length=32, device=CPU
        )
    for half, embeds in zip(ours.halves, stock, strict=True):
        assert list(half) == ["embeds"]
        assert torch.equal(half["embeds"], embeds)
    assert not torch.equal(*stock)


def test_clip_sees_the_first_frame_as_in_the_stock_pipeline(models: Models) -> None:
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 256, (80, 48, 3), dtype=np.uint8)
    spec = models.spec("wan-i2v", image="first.png")
    with torch.no_grad():
        ours = wan.encode(models.facts("wan-i2v"), spec, CPU, 2, np.float32(picture / 255))
        stock = models.pipeline("wan-i2v").encode_image(Image.fromarray(picture), CPU)
    for half in ours.halves:
        assert torch.equal(half["image_embeds"], stock)


def test_models_that_see_always_read_512_tokens(models: Models) -> None:
    """They tell text from picture by that number; prompts are padded with zeros."""
    facts = models.facts("wan-i2v")
    short, long = (
        wan.encode(facts, models.spec("wan-i2v", max_sequence_length=n), CPU, 1).halves[0]["embeds"]
        for n in (32, 512)
    )
    assert short.shape[1] == 512
    assert torch.equal(short, long)


# ---- checkpoints


def test_facts_of_each_layout(models: Models) -> None:
    plain, experts, seen = (models.facts(name) for name in ("wan", "wan22", "wan-i2v"))
    assert (plain.latent.channels, plain.latent.downscale, plain.latent.patch) == (16, 8, 2)
    assert (plain.latent.temporal, plain.training_size, plain.training_frames) == (4, 624, 81)
    assert plain.float32_noise
    assert set(experts.cost.weight_bytes) - set(plain.cost.weight_bytes) == {"transformer_2"}
    assert set(seen.cost.weight_bytes) - set(plain.cost.weight_bytes) == {"image_encoder"}
    small = models.facts("wan22-small")
    assert (small.latent.downscale, small.training_frames) == (16, 121)


def test_a_checkpoint_may_state_its_training_size(models: Models, tmp_path: Path) -> None:
    folder = tmp_path / "wan"
    shutil.copytree(models.checkpoint("wan"), folder)
    (folder / "frieze.json").write_text(json.dumps({"training_size": 960, "training_frames": 49}))
    facts = describe(str(folder))
    assert (facts.training_size, facts.training_frames) == (960, 49)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pos_embed_seq_len": 514}, "first and a last frame"),
        ({"patch_size": [2, 2, 2]}, "patches of 2x2x2"),
    ],
)
def test_what_no_band_can_draw_is_refused(
    models: Models, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = tmp_path / "wan"
    shutil.copytree(models.checkpoint("wan"), folder)
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    with pytest.raises(ModelError, match=message):
        describe(str(folder))


def test_the_autoencoder_stays_in_float32(models: Models) -> None:
    spec = models.spec("wan", dtype="bfloat16")
    model = wan.load(models.facts("wan"), spec, CPU)
    assert model.vae.dtype == torch.float32
    assert model.experts[0].proj_out.weight.dtype == torch.bfloat16
    place, half = Place(WHOLE[0], CANVAS, trained), {"embeds": noise(1, 512, 16).bfloat16()}
    with torch.no_grad():
        assert model.denoised(latents(), LOW, half, place, Guidance(5.0)).dtype == torch.float32


def test_the_network_can_be_made_without_its_weights(models: Models) -> None:
    facts = replace(models.facts("wan22-i2v"), family="wan")
    with torch.device("meta"):
        network = wan.denoiser(facts)
    shapes = {name: p.shape for name, p in network.named_parameters()}
    stock = models.pipeline("wan22-i2v").transformer
    assert shapes == {name: p.shape for name, p in stock.named_parameters()}
