"""What a worker computes in float32 is not rounded, and the process gets its choice back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from frieze.renderer.spec.render_spec import RenderSpec
from frieze.renderer.worker import model_cache
from frieze.renderer.worker.precision import exactly, full_float32
from frieze.renderer.worker.shard import Shard
from support.drawing import draw, grey_levels, pixels
from tolerances import AMPLE, EXACT_FLOAT32, GREY_LEVELS

CUDNN = torch.backends.cudnn
# 10 bits of a factor, of which some thousand are added up.
TF32 = 1e-4


@pytest.fixture(autouse=True)
def _may_round() -> Iterator[None]:
    before = CUDNN.allow_tf32
    CUDNN.allow_tf32 = True
    yield
    CUDNN.allow_tf32 = before


@exactly
def chosen() -> tuple[bool, bool]:
    return CUDNN.allow_tf32, torch.is_grad_enabled()


@exactly
def chosen_twice() -> Iterator[bool]:
    """Its own choice at each item."""
    yield CUDNN.allow_tf32
    yield CUDNN.allow_tf32


def test_inside_nothing_is_rounded_and_afterwards_all_is_as_it_was() -> None:
    with torch.enable_grad():
        assert chosen() == (False, False)
        assert torch.is_grad_enabled()
    assert list(chosen_twice()) == [False, False]
    assert CUDNN.allow_tf32


def test_a_generator_that_is_left_early_gives_the_choice_back() -> None:
    items = chosen_twice()
    assert next(items) is False
    items.close()
    assert CUDNN.allow_tf32


def test_the_last_thread_to_leave_gives_it_back() -> None:
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with full_float32():
            inside.set()
            leave.wait(AMPLE)

    thread = threading.Thread(target=stay)
    thread.start()
    assert inside.wait(AMPLE)
    with full_float32():
        pass
    assert not CUDNN.allow_tf32
    leave.set()
    thread.join()
    assert CUDNN.allow_tf32


def test_a_choice_for_convolutions_alone_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CUDNN.rnn, "fp32_precision", "ieee")
    with full_float32():
        assert CUDNN.conv.fp32_precision == "ieee"
    assert CUDNN.conv.fp32_precision == "tf32"


def test_every_verb_that_computes_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = F.conv2d

    def conv2d(*args: torch.Tensor, **kwargs: object) -> torch.Tensor:
        if not args[0].is_meta:  # what is only counted is rounded nowhere
            seen.append(CUDNN.allow_tf32)
        return original(*args, **kwargs)

    for module in (torch.nn.functional, F):
        monkeypatch.setattr(module, "conv2d", conv2d)
    draw(tmp_path / "a.zarr", num_inference_steps=1, device="cpu")
    assert seen
    assert not any(seen)
    assert CUDNN.allow_tf32
    assert {name for name in vars(Shard) if hasattr(getattr(Shard, name), "__wrapped__")} >= {
        "begin",
        "step",
        "restore",
        "decode_stage",
        "decode",
    }


def test_a_cuda_device_has_a_number() -> None:
    """Without one `torch.cuda.set_device` refuses it."""
    for name, device in {"cuda": "cuda:0", "cuda:1": "cuda:1", "cpu": "cpu"}.items():
        spec = RenderSpec(prompt="a", device=name)
        assert model_cache.device_of(spec) == torch.device(device)


@pytest.mark.gpu
def test_convolutions_on_a_gpu_are_float32s() -> None:
    x, w = torch.randn(1, 128, 64, 64, device="cuda"), torch.randn(64, 128, 3, 3, device="cuda")
    right = F.conv2d(x.double(), w.double())

    def error() -> float:
        return float((F.conv2d(x, w) - right).abs().max() / right.abs().max())

    assert exactly(error)() < EXACT_FLOAT32 / 10
    assert error() > TF32 / 10  # the control


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["none", "auto", "ultraimage"])
def test_a_gpu_draws_what_the_processor_draws(tmp_path: Path, method: str) -> None:
    size = {"height": 384, "width": 256, "method": method}
    for name, device, workers in (("a", "cpu", 1), ("b", "cuda", 1), ("c", "cuda", 3)):
        draw(tmp_path / f"{name}.zarr", device=device, workers=workers, **size)
    on_cpu, on_gpu, on_ranks = (pixels(tmp_path / f"{name}.zarr") for name in "abc")
    assert grey_levels(on_gpu, on_cpu) <= GREY_LEVELS
    assert grey_levels(on_ranks, on_gpu) <= GREY_LEVELS
