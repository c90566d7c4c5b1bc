"""Attention changed by a method: the same on any number of ranks, after a resume, and undone."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from frieze.renderer import Event, RenderCancelledError, render, resume
from frieze.renderer.extrapolation.concentration import concentration, logarithmic, proportional
from support.drawing import draw, grey_levels, pixels, small_spec
from tolerances import ENTROPY_FLOAT32, GREY_LEVELS

pytestmark = pytest.mark.usefixtures("kept_encoders")

# Twice as high as trained, in one stage from noise; narrow, for that is quick.
DIRECT: dict[str, Any] = {
    "height": 512,
    "width": 128,
    "num_inference_steps": 2,
    "stages": [{"scale": 1.0}],
}
# Both sides longer than trained: `auto` leaves others alone.
BOTH = DIRECT | {"height": 320, "width": 288}
GUIDED = {"negative_prompt": "a white moon", "true_cfg_scale": 2.0}


def entropies(store: Path) -> list[dict[str, list[float]]]:
    lines = (store / "frieze" / "journal.jsonl").read_text().splitlines()
    (found,) = [e for e in map(json.loads, lines) if e["event"] == "focus"]
    return found["entropies"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One rank's pictures by method."""
    folder = tmp_path_factory.mktemp("alone")
    made = {}
    for name in ("none", "eaac", "sega", "yarn"):
        made[name] = folder / f"{name}.zarr"
        draw(made[name], method=name, **DIRECT)
    return made


@pytest.mark.parametrize("method", ["eaac", "sega", "yarn"])
def test_any_number_of_ranks_draws_the_same(
    tmp_path: Path, alone: dict[str, Path], method: str
) -> None:
    draw(tmp_path / "3.zarr", method=method, workers=3, **DIRECT)
    ours, one, plain = (pixels(p) for p in (tmp_path / "3.zarr", alone[method], alone["none"]))
    assert grey_levels(ours, one) <= GREY_LEVELS
    assert grey_levels(one, plain) > 10 * GREY_LEVELS  # the method shows


@pytest.mark.slow
def test_so_it_is_with_what_is_done_unless_told_otherwise(tmp_path: Path) -> None:
    for name, fields in {"3": {"workers": 3}, "1": {}, "plain": {"method": "none"}}.items():
        draw(tmp_path / f"{name}.zarr", **BOTH | {"method": "auto"} | fields)
    ours, one, plain = (pixels(tmp_path / f"{name}.zarr") for name in ("3", "1", "plain"))
    assert grey_levels(ours, one) <= GREY_LEVELS
    assert grey_levels(one, plain) > 10 * GREY_LEVELS


def test_entropies_do_not_depend_on_the_ranks(tmp_path: Path, alone: dict[str, Path]) -> None:
    (one,) = entropies(alone["eaac"])
    assert len(one) == 5  # every joint attention of the demo model
    most = np.log(32 * 8 + 32)
    assert all(0 < entropy < most for heads in one.values() for entropy in heads)
    path = tmp_path / "4.zarr"
    draw(path, method="eaac", workers=4, ulysses=2, **DIRECT)
    (several,) = entropies(path)
    for layer, heads in one.items():
        assert several[layer] == pytest.approx(heads, rel=ENTROPY_FLOAT32)


def test_halves_of_the_guidance_have_entropies_of_their_own(tmp_path: Path) -> None:
    for workers, ranks in ((1, 1), (4, 2)):
        path = tmp_path / f"{workers}.zarr"
        draw(path, method="eaac", workers=workers, guidance_ranks=ranks, **GUIDED, **DIRECT)
    positive, negative = entropies(tmp_path / "1.zarr")
    assert positive.keys() == negative.keys()
    assert positive != negative
    for half, twin in zip((positive, negative), entropies(tmp_path / "4.zarr"), strict=True):
        for layer, heads in half.items():
            assert twin[layer] == pytest.approx(heads, rel=ENTROPY_FLOAT32)
    run_isolated = grey_levels(pixels(tmp_path / "1.zarr"), pixels(tmp_path / "4.zarr"))
    assert run_isolated <= GREY_LEVELS


def test_factors_of_one_change_no_bit(tmp_path: Path, alone: dict[str, Path]) -> None:
    draw(tmp_path / "a.zarr", method="eaac", method_options={"most": 1.0}, **DIRECT)
    assert np.array_equal(pixels(tmp_path / "a.zarr"), pixels(alone["none"]))


def test_at_the_trained_size_nothing_changes(tmp_path: Path) -> None:
    draw(tmp_path / "a.zarr", num_inference_steps=1, width=64)
    for method in ("eaac", "sega", "proportional", "auto"):
        draw(tmp_path / f"{method}.zarr", num_inference_steps=1, width=64, method=method)
        assert np.array_equal(*(pixels(tmp_path / f"{n}.zarr") for n in ("a", method))), method


def test_a_resume_keeps_what_the_first_step_measured(
    tmp_path: Path, alone: dict[str, Path]
) -> None:
    path = tmp_path / "a.zarr"
    spec = small_spec(path, method="eaac", **DIRECT)
    cancel = threading.Event()

    def listen(event: Event) -> None:
        if event.kind == "step" and event.step == 1:
            cancel.set()

    with pytest.raises(RenderCancelledError):
        render(spec, on_event=listen, cancel=cancel)
    resume(path)
    assert np.array_equal(pixels(path), pixels(alone["eaac"]))


# ---- the maps from entropy to factors (UltraImage, arXiv 2512.04504, and its released constants)


QWEN = {0.04: 1.3, 1: 1.2144, 2: 1.1405, 3.145: 1.0750, 4: 1.0394, 5: 1.0122, 6.25: 1.0}
FLUX = {0.44: 1.3, 1: 1.2617, 2: 1.2035, 3: 1.1582, 4: 1.1259, 5: 1.1065, 6: 1.1}


@pytest.mark.parametrize(("entropy", "expected"), QWEN.items())
def test_released_constants_of_qwen(entropy: float, expected: float) -> None:
    found = concentration(torch.tensor([[entropy]]), lowest=0.04, highest=6.25)
    assert float(found) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(("entropy", "expected"), FLUX.items())
def test_released_constants_of_flux(entropy: float, expected: float) -> None:
    found = concentration(torch.tensor([[entropy]]), least=1.1, lowest=0.44, highest=6.0)
    assert float(found) == pytest.approx(expected, abs=5e-5)


def test_local_heads_are_concentrated_most_and_missing_ones_do_not_count() -> None:
    entropy_LH = torch.tensor([[1.0, 5.0, torch.nan], [2.0, 3.0, 4.0]], dtype=torch.float64)
    scale_LH = concentration(entropy_LH)
    assert (float(scale_LH[0, 0]), float(scale_LH[0, 1])) == (1.3, 1.0)
    assert scale_LH[1].tolist() == sorted(scale_LH[1].tolist(), reverse=True)
    assert bool(scale_LH[0, 2].isnan())
    same = torch.full((2, 2), 3.0, dtype=torch.float64)
    assert bool((concentration(same) == 1.0).all())


def test_factors_that_follow_the_number_of_tokens() -> None:
    assert proportional(65536 + 512, 4608) == pytest.approx(1.147, abs=5e-4)
    assert proportional(1024, 256) == pytest.approx(1.118, abs=5e-4)
    assert proportional(256, 256) == proportional(64, 256) == 1.0
    assert logarithmic(1.5, 45 * 80) == pytest.approx(1.050, abs=5e-4)
    assert logarithmic(2.0, 45 * 80) == pytest.approx(1.085, abs=5e-4)
