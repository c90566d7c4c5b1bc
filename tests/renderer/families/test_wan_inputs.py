"""What Wan draws from: first frames, prompts and checkpoints, against the stock pipelines.

Shape suffixes: B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from frieze.cluster.layout import Band
from frieze.renderer import ModelError, PlanError, plan
from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.driver.initial_pictures import first_frame as first_frame_of
from frieze.renderer.driver.initial_pictures import keep_sources
from frieze.renderer.driver.store_arrays import store_layout
from frieze.renderer.families import wan
from frieze.renderer.models.family import BandPlace, Guidance
from frieze.renderer.models.positions import trained
from frieze.renderer.spec.render_spec import parse
from frieze.renderer.store.store import Store
from support.wan_parts import (
    CANVAS,
    CPU,
    CUTS,
    LOW,
    WHOLE,
    Models,
    distance,
    first_frame,
    latents,
    noise,
    on_bands,
    tensors,
)
from tolerances import CONTROL, EXACT_FLOAT32

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("wan"))


# ---- first frames


def test_the_encoder_of_pictures_sees_the_picture_itself_whatever_its_shape(
    models: Models, tmp_path: Path
) -> None:
    """Not the one that is stretched to the clip's size; after a stop neither."""
    path = tmp_path / "wide.png"
    pixels_HWC = np.random.default_rng(0).integers(0, 256, (40, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels_HWC).save(path)
    made = plan(models.spec("wan-i2v", num_frames=5, image=str(path)))
    seen_HWC = first_frame_of(made, None)
    (half,) = wan.encode(made.facts, made.spec, CPU, 1, seen_HWC).halves
    pipeline = models.pipeline("wan-i2v")
    stock, stretched = (
        pipeline.encode_image(picture, CPU)
        for picture in (Image.open(path), Image.open(path).resize((48, 80)))
    )
    assert distance(half["image_embeds"], stock) <= EXACT_FLOAT32
    assert distance(half["image_embeds"], stretched) > CONTROL
    store = Store.create(tmp_path / "clip.zarr", store_layout(made), fingerprint="", run={})
    keep_sources(made, store)
    store.journal.append({"event": "state", "stage": 0, "step": 1, "slot": 0})
    path.unlink()
    assert np.array_equal(first_frame_of(made, store), seen_HWC)


@pytest.mark.parametrize("name", ["wan-i2v", "wan22-i2v"])
def test_a_first_frame_conditions_as_in_the_stock_pipeline(models: Models, name: str) -> None:
    pipeline, model = models.pipeline(name), models.model(name)
    frame, num_frames = first_frame(), 4 * (CANVAS.frames - 1) + 1
    with torch.no_grad():
        _, stock = pipeline.prepare_latents(
            frame[:, :, 0], 1, 16, *frame.shape[-2:], num_frames, torch.float32, CPU
        )
        ours = model.image_condition(frame, BandPlace(WHOLE[0], CANVAS, trained))
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
            work(frame[..., r.start : r.stop, :], BandPlace(band, CANVAS, trained))
            for r, band in zip(rows, bands, strict=True)
        ]
    assert distance(torch.cat(alone, dim=-2), whole) > CONTROL


def test_the_small_model_keeps_a_first_frame_at_time_0(models: Models) -> None:
    pipeline, model, x = models.pipeline("wan22-small"), models.model("wan22-small"), latents()
    place = BandPlace(WHOLE[0], CANVAS, trained)
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
    place, half = BandPlace(WHOLE[0], CANVAS, trained), {"embeds": noise(1, 512, 16).bfloat16()}
    with torch.no_grad():
        assert model.denoised(latents(), LOW, half, place, Guidance(5.0)).dtype == torch.float32


def test_guidance_of_a_second_expert_needs_one(models: Models) -> None:
    folder = models.facts("wan").folder
    with pytest.raises(PlanError, match="guidance_scale_2 3: WanPipeline here has one expert"):
        plan(parse({"prompt": "x", "model": folder, "guidance_scale_2": 3}))


def test_a_first_frame_is_asked_for_allowed_or_refused(models: Models) -> None:
    asked = {name: models.facts(name) for name in ("wan", "wan-i2v", "wan22-small")}
    takes = {name: (facts.takes_image, facts.image_optional) for name, facts in asked.items()}
    assert takes == {
        "wan": (False, False),
        "wan-i2v": (True, False),
        "wan22-small": (True, True),
    }
    with pytest.raises(PlanError, match="animates a first frame; give it with image"):
        plan(parse({"prompt": "x", "model": asked["wan-i2v"].folder}))
    plan(parse({"prompt": "x", "model": asked["wan22-small"].folder, "height": 224}))
