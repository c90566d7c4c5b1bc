"""NaN and infinity: found where they come out, on all ranks alike; what was finite is kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from checkpoints import build
from frieze.cluster.comm import Comm, run_threads
from frieze.renderer import ModelError, RenderFailedError, RenderSpec, SpecError, render, resume
from frieze.renderer.autoencoders import decoding
from frieze.renderer.batches import attempts
from frieze.renderer.driver import initial_pictures
from frieze.renderer.errors import NotFiniteError
from frieze.renderer.families.flux import Flux
from frieze.renderer.models import finite
from frieze.renderer.spec.render_spec import parse
from frieze.renderer.store.store import Store
from support.command_line import frieze, refused
from support.drawing import pixels

# Diffusers and torch warn about each other; what is tested is the renderer.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
NAN, INF = float("nan"), float("inf")
STEPS = 4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("flux", tmp_path_factory.mktemp("flux") / "model")


def spec(model: Path, out: Path, **fields: Any) -> RenderSpec:
    """Two workers, each with half of a small picture, guided by two prompts."""
    drawn: dict[str, Any] = {
        "prompt": "a red sun",
        "negative_prompt": "grey",
        "true_cfg_scale": 2.0,
        "height": 64,
        "width": 64,
        "num_inference_steps": STEPS,
        "method": "none",
        "workers": 2,
        "local": True,
    }
    return RenderSpec(**(drawn | {"model": str(model), "out": str(out)} | fields))


def nobody_looks(patch: pytest.MonkeyPatch) -> None:
    """The control: a renderer without these checks."""
    patch.setattr(finite, "first_fault", lambda *_: "")
    patch.setattr(finite, "is_finite", lambda *_: True)


# ---- tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_one_element_on_one_rank_is_told_by_every_rank(dtype: torch.dtype, value: float) -> None:
    def rank(comm: Comm, value: float) -> str:
        x = torch.linspace(-6e4, 6e4, 60).to(dtype).reshape(3, 4, 5).mT
        if comm.rank == 1:
            x[1, 2, 3] = value
        empty: list[Tensor] = []
        return finite.first_fault(comm, {"nothing": empty, "none": [x[:, :0]], "x": [x], "y": [x]})

    assert run_threads(rank, 3, value) == ["x"] * 3
    assert run_threads(rank, 3, 0.0) == [""] * 3


# ---- steps


def spoil(
    patch: pytest.MonkeyPatch, name: str, step: int, change: Callable[[Tensor], Tensor]
) -> None:
    """What a method of the model returns at a call is changed on the worker with the last rows."""
    plain, calls = getattr(Flux, name), []

    def spoilt(self: Flux, x: Tensor, *args: Any) -> Tensor:
        place = next((value for value in args if hasattr(value, "band")), None)
        if place is not None and place.band.start:
            calls.append(name)
        made = plain(self, x, *args)
        return change(made) if len(calls) == 2 * step and place.band.start else made

    patch.setattr(Flux, name, spoilt)


def with_one(value: float) -> Callable[[Tensor], Tensor]:
    def change(x: Tensor) -> Tensor:
        x = x.clone()
        x[0, 0, 0, -1, -1] = value
        return x

    return change


@pytest.mark.parametrize("value", [NAN, pytest.param(INF, marks=pytest.mark.slow)])
def test_a_step_that_is_not_finite_ends_the_render_and_the_store_resumes(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    plain, path = tmp_path / "plain.zarr", tmp_path / "a.zarr"
    render(spec(checkpoint, plain))
    with monkeypatch.context() as patch:
        spoil(patch, "denoised", 3, with_one(value))
        with pytest.raises(NotFiniteError) as caught:
            render(spec(checkpoint, path))
    told = str(caught.value)
    assert told.startswith("step 3 of 4 of stage 1 of 1: the model's estimate of the picture")
    assert "NaN or infinite in float32; a smaller true_cfg_scale 2 may work" in told
    assert str(path) in told
    # The state that the step began with is finite, was written meanwhile, and counts.
    state = Store.open(path).last_state()
    assert state is not None
    assert (state.stage, state.step) == (0, 2)
    saved = Store.open(path).load_latents(0, state.slot, slice(0, 8))
    assert np.isfinite(saved).all()
    resume(path)
    assert np.array_equal(pixels(path), pixels(plain))


def test_control_nobody_looks_and_it_is_drawn_to_the_end(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, "denoised", 3, with_one(NAN))
    nobody_looks(monkeypatch)
    with np.errstate(invalid="ignore"):
        render(spec(checkpoint, tmp_path / "a.zarr"))
    assert pixels(tmp_path / "a.zarr").std() == 0


def test_a_scale_out_of_range_is_refused_and_would_end_in_one_line(
    checkpoint: Path, tmp_path: Path
) -> None:
    for field in ("guidance_scale", "guidance_scale_2", "true_cfg_scale"):
        with pytest.raises(SpecError, match=rf"{field}.*less than or equal to 1000"):
            parse({field: 1e30})
    huge = spec(checkpoint, tmp_path / "a.zarr").model_copy(update={"true_cfg_scale": 1e30})
    with pytest.raises(NotFiniteError, match=r"step \d of 4 .* a smaller true_cfg_scale 1e\+30"):
        render(huge)


# ---- what is encoded, what is decoded


def test_a_picture_that_is_no_number_is_not_begun_with(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    fitted = initial_pictures.fitted

    def spoilt(*args: Any) -> Any:
        for frame_CHW in fitted(*args):
            frame_CHW[1, 40, 30] = NAN
            yield frame_CHW

    monkeypatch.setattr(initial_pictures, "fitted", spoilt)
    redrawn = spec(checkpoint, tmp_path / "a.zarr", init=str(tmp_path / "red.png"))
    with pytest.raises(NotFiniteError, match="the start of stage 1 of 1: the encoded picture"):
        render(redrawn)
    assert Store.open(tmp_path / "a.zarr").last_state() is None


def overflowing(folder: Path, checkpoint: Path, *, upcast: bool) -> Path:
    """A copy whose decoder goes beyond 65504 inside, and comes back in its norms."""
    model = Path(shutil.copytree(checkpoint, folder))
    file = model / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    for name in ("weight", "bias"):
        weights[f"decoder.up_blocks.3.resnets.1.conv2.{name}"] *= 5e4
    save_file(weights, file, {"format": "pt"})
    config = json.loads((model / "vae" / "config.json").read_text())
    (model / "vae" / "config.json").write_text(json.dumps(config | {"force_upcast": upcast}))
    return model


def test_an_autoencoder_that_overflows_float16_is_found_or_upcast_as_its_config_says(
    checkpoint: Path, tmp_path: Path
) -> None:
    mended = overflowing(tmp_path / "mended", checkpoint, upcast=True)
    render(spec(mended, tmp_path / "a.zarr", dtype="float16"))
    assert pixels(tmp_path / "a.zarr").std() > 1
    plain = overflowing(tmp_path / "plain", checkpoint, upcast=False)
    with pytest.raises(NotFiniteError, match=r"decoding .* dtype bfloat16 or float32 works"):
        render(spec(plain, tmp_path / "b.zarr", dtype="float16"))
    state = Store.open(tmp_path / "b.zarr").last_state()
    assert state is not None
    assert state.step == STEPS


def test_pixels_that_are_not_finite_are_not_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tail = decoding.tail_rows

    def spoilt(bordered: Tensor, rows: Any, first: int, *rest: Any) -> Tensor:
        made = tail(bordered, rows, first, *rest)
        return made / 0 if first >= 32 else made

    monkeypatch.setattr(decoding, "tail_rows", spoilt)
    with pytest.raises(NotFiniteError, match="decoding stage 1: the decoded pixels"):
        render(spec(checkpoint, tmp_path / "a.zarr"))
    assert not Store.open(tmp_path / "a.zarr").covers(Store.open(tmp_path / "a.zarr").done(), 32)


# ---- weights


@pytest.mark.parametrize(
    ("part", "weight"),
    [
        ("transformer", "single_transformer_blocks.0.proj_out.bias"),
        ("vae", "decoder.conv_in.weight"),
        ("text_encoder", "final_layer_norm.weight"),
        ("text_encoder_2", "encoder.final_layer_norm.weight"),
    ],
)
def test_a_weight_that_is_not_finite_is_named(
    checkpoint: Path, tmp_path: Path, part: str, weight: str
) -> None:
    model = Path(shutil.copytree(checkpoint, tmp_path / "model"))
    file = next((model / part).glob("*.safetensors"))
    weights = load_file(file)
    (name,) = (key for key in weights if key.endswith(weight))
    weights[name].view(-1)[-1] = INF
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ModelError, match=rf"model/{part}: weight .*{weight} holds NaN or inf"):
        render(spec(model, tmp_path / "a.zarr"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]  # nothing was done


# ---- how it is told


def test_it_is_one_line_and_is_not_tried_again(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, "denoised", 1, with_one(NAN))
    words = (
        "--size",
        "64x64",
        "--num-inference-steps",
        "4",
        "--local",
        "--workers",
        "2",
        "--quiet",
    )
    out = ("--out", str(tmp_path / "a.zarr"))
    told = frieze("render", "a sun", "--model", str(checkpoint), "--method", "none", *words, *out)
    refused(told, "step 2 of 4", "NaN or infinite in float32", code=1)
    assert not attempts._may_pass(NotFiniteError("step 1"), {"step"})
    assert attempts._may_pass(RenderFailedError("a worker was lost"), {"step"})
