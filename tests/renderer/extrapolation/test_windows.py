"""Windows as HiDiffusion and FreeScale published them: the authors' outputs, on any bands."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from frieze.cluster.attention import (
    AttentionShape,
    ScaleFusion,
    Window,
    fused_features,
    gaussian_kernel,
    low_pass,
    shaped_attention,
)
from frieze.cluster.attention.resizing import resized, resized_bands
from frieze.cluster.comm import Comm, axis_comms, run_threads
from frieze.cluster.layout import Band, TokenGrid
from frieze.renderer.extrapolation.windows import (
    interleaved_windows,
    seeded,
    shifted_shape,
    shifted_windows,
    trained_windows,
)
from support.vectors import EXACT, ROUNDED, difference, noise, parameter, vectors
from tolerances import AMPLE, CONTROL

# Edges of unequal bands, in sixteenths of the canvas.
CUTS = ((0, 16), (0, 6, 16), (0, 6, 8, 16))


def bands_of(rows: int) -> list[tuple[Band, ...]]:
    return [tuple(Band(a * rows // 16, b * rows // 16) for a, b in pairwise(cut)) for cut in CUTS]


def on_bands(function: Callable[[Comm, Band], Tensor], bands: tuple[Band, ...], dim: int) -> Tensor:
    parts = run_threads(lambda comm: function(comm, bands[comm.rank]), len(bands), timeout=AMPLE)
    return torch.cat(parts, dim)


def attn1(
    shape: AttentionShape, x: Tensor, grid: tuple[int, int], bands: tuple[Band, ...]
) -> Tensor:
    """Self-attention of a transformer block of two heads whose weights come of their names."""
    w_q, w_k, w_v, w_out = (
        parameter(f"attn1.{name}.weight", (16, 16)) for name in ("to_q", "to_k", "to_v", "to_out.0")
    )
    bias = parameter("attn1.to_out.0.bias", (16,))

    def rank(comm: Comm, band: Band) -> Tensor:
        own = x[:, band.start * grid[1] : band.stop * grid[1]]
        q, k, v = ((own @ w.mT).unflatten(-1, (2, 8)).transpose(1, 2) for w in (w_q, w_k, w_v))
        out = shaped_attention(
            *(q, k, v), comms=axis_comms(comm), grid=TokenGrid(1, bands, grid[1]), shape=shape
        )
        out = out.transpose(1, 2).flatten(2) @ w_out.mT + bias
        if shape.fusion is None or not shape.fuses_features:
            return out
        return fused_features(out, shape.fusion)

    return on_bands(rank, bands, 1)


def is_even(vector: dict[str, Any]) -> bool:
    """The release resizes odd maps to even ones; ours have windows of unequal size if unasked."""
    return not any(side % 2 for side in vector["grid"])


@pytest.mark.parametrize("vector", [v for v in vectors("windows_label") if is_even(v)])
def test_shifted_windows_are_hidiffusions(vector: dict[str, Any]) -> None:
    rows, columns = vector["grid"]
    windows = shifted_windows(rows, columns, vector["q"])
    labels = torch.full((rows, columns), -1)
    for label, window in enumerate(windows.windows):
        at_rows = torch.tensor(windows.on_canvas(window.rows, rows))
        labels[at_rows[:, None], torch.tensor(windows.on_canvas(window.columns, columns))] = label
    assert labels.tolist() == vector["label_of_token"]


@pytest.mark.parametrize("vector", [v for v in vectors("windows_attention") if is_even(v)])
def test_shifted_attention_is_hidiffusions(vector: dict[str, Any]) -> None:
    rows, columns = vector["grid"]
    x = noise((1, rows * columns, 16), vector["seed"])
    for bands in bands_of(rows):
        shape = AttentionShape(shifted_windows(rows, columns, vector["q"]))
        got = attn1(shape, x, (rows, columns), bands)
        assert difference(got, vector["attn1_output"]) <= EXACT
        other = AttentionShape(shifted_windows(rows, columns, (vector["q"] + 1) % 4))
        assert difference(attn1(other, x, (rows, columns), bands), vector["attn1_output"]) > CONTROL


@pytest.mark.parametrize("vector", [v for v in vectors("windows_label") if not is_even(v)])
def test_odd_maps_are_resized_as_hidiffusion_does(vector: dict[str, Any]) -> None:
    """What its windows hold of a map of the tokens' own numbers."""
    rows, columns = vector["grid"]
    shape = shifted_shape(rows, columns, vector["q"], "resize")
    assert shape.grid == tuple(vector["resized_to"])
    numbers = torch.arange(rows * columns, dtype=torch.float64).view(1, rows, columns, 1)
    for bands in uneven(rows):
        to_bands = resized_bands(bands, shape.grid[0])

        def rank(
            comm: Comm,
            band: Band,
            bands: tuple[Band, ...] = bands,
            to_bands: tuple[Band, ...] = to_bands,
        ) -> Tensor:
            return resized(numbers[:, band.start : band.stop], comm, bands, to_bands, columns)

        made = on_bands(rank, bands, 1)[0, :, :, 0]
        for window, stated in zip(
            shape.windows.windows, vector["windows_of_interpolated_indices"], strict=True
        ):
            of_rows, of_columns = (
                torch.tensor([i % n for i in span])
                for span, n in zip((window.rows, window.columns), shape.grid, strict=True)
            )
            assert difference(made[of_rows[:, None], of_columns].flatten(), stated) <= ROUNDED


@pytest.mark.parametrize("vector", [v for v in vectors("windows_attention") if not is_even(v)])
def test_shifted_attention_of_odd_maps_is_hidiffusions(vector: dict[str, Any]) -> None:
    rows, columns = vector["grid"]
    x = noise((1, rows * columns, 16), vector["seed"])
    for bands in uneven(rows):
        resizes = shifted_shape(rows, columns, vector["q"], "resize")
        got = attn1(resizes, x, (rows, columns), bands)
        assert difference(got, vector["attn1_output"]) <= EXACT
        cuts = shifted_shape(rows, columns, vector["q"])
        assert difference(attn1(cuts, x, (rows, columns), bands), vector["attn1_output"]) > CONTROL


def uneven(rows: int) -> list[tuple[Band, ...]]:
    """One band; two and three unequal ones, one of a single row."""
    return [
        (Band(0, rows),),
        (Band(0, 1), Band(1, rows)),
        (Band(0, 2), Band(2, 3), Band(3, rows)),
    ]


@pytest.mark.parametrize("shift", range(4))
def test_windows_of_odd_maps_are_a_cover_too(shift: int) -> None:
    for rows, columns in ((7, 10), (9, 9), (8, 13), (3, 5)):
        windows = shifted_windows(rows, columns, shift)
        assert windows.counts(Band(0, rows), rows, columns).eq(1).all()


@pytest.mark.parametrize("vector", vectors("views"))
def test_windows_of_the_trained_size_are_freescales(vector: dict[str, Any]) -> None:
    """Drawn as released: row by row, each its columns before its rows."""
    windows = trained_windows(
        *vector["grid"],
        tuple(vector["window"]),
        random.Random(vector["python_random_seed"]).randint,
        separable=False,
        edge="zeros",
    )
    assert [
        [w.rows.start, w.rows.stop, w.columns.start, w.columns.stop] for w in windows.windows
    ] == vector["rows_and_columns_in_canvas_coordinates"]


@pytest.mark.parametrize("vector", vectors("gaussian_kernel"))
def test_gaussians_are_freescales(vector: dict[str, Any]) -> None:
    expected = torch.tensor(vector["weights"], dtype=torch.float64)
    got = gaussian_kernel(vector["size"], vector["sigma"])
    assert float((got - expected).abs().max()) <= ROUNDED


@pytest.mark.parametrize("vector", vectors("gaussian"))
def test_blurs_of_bands_are_freescales(vector: dict[str, Any]) -> None:
    x = noise(tuple(vector["shape_BHWC"]), vector["seed"])
    fusion = ScaleFusion(vector["kernel"], vector["sigma"], vector["blur"])

    for bands in bands_of(x.shape[1]):

        def rank(comm: Comm, band: Band, bands: tuple[Band, ...] = bands) -> Tensor:
            coarse = low_pass(x[:, band.start : band.stop], comm, bands, fusion)
            if "c" not in fusion.axes:
                return coarse
            tokens = coarse.flatten(1, 2)
            both = torch.cat((torch.zeros_like(tokens), tokens), 1)
            return fused_features(both, fusion).view_as(coarse)

        assert difference(on_bands(rank, bands, 1), vector["output"]) <= ROUNDED


@pytest.mark.parametrize("vector", vectors("fusion"))
def test_fused_attention_is_freescales(vector: dict[str, Any]) -> None:
    """Full and fast, blurred as each release did, windows drawn as released, at 1x and 2x."""
    rows, columns = vector["grid"]
    steps = (vector["pixels"][0] // 1024, vector["pixels"][1] // 1024)
    x = noise((vector["batch"], rows * columns, 16), vector["seed"])

    def shape(draw: Any) -> AttentionShape:
        window = (rows // steps[0], columns // steps[1])
        local = trained_windows(rows, columns, window, draw, separable=False, edge="zeros")
        coarse = interleaved_windows(rows, columns, steps) if vector["fast"] else None
        return AttentionShape(
            local, ScaleFusion(2 * max(steps) - 1, 1.0, vector["blur"], coarse=coarse)
        )

    for bands in bands_of(rows):
        drawn = shape(random.Random(vector["python_random_seed"]).randint)
        got = attn1(drawn, x, (rows, columns), bands)
        assert difference(got, vector["attn1_output"]) <= ROUNDED
        if steps != (1, 1):  # control: windows that do not move are others
            still = attn1(shape(None), x, (rows, columns), bands)
            assert difference(still, vector["attn1_output"]) > 10 * ROUNDED


def test_separable_windows_share_their_rows_and_cover_the_canvas() -> None:
    for side, window in ((64, 32), (64, 16), (48, 24), (33, 16), (8, 4)):
        for seed in range(20):
            windows = trained_windows(side, side, (window, window), seeded(f"{seed}"))
            rows, columns = (
                {getattr(w, name) for w in windows.windows} for name in ("rows", "columns")
            )
            assert set(windows.windows) == {Window(r, c) for r in rows for c in columns}
            assert windows.counts(Band(0, side), side, side).min() >= 1
    whole = trained_windows(16, 16, (16, 16), seeded("1"))
    assert [(w.rows, w.columns) for w in whole.windows] == [(range(16), range(16))]


def test_a_seeded_draw_is_its_keys_alone() -> None:
    """The same numbers on every machine, as written here; both ends of a range occur."""
    first, again, other = (seeded(key) for key in ("7/1/3/down", "7/1/3/down", "7/1/4/down"))
    numbers = [first(-4, 4) for _ in range(200)]
    assert numbers == [again(-4, 4) for _ in range(200)]
    assert numbers != [other(-4, 4) for _ in range(200)]
    assert set(numbers) == set(range(-4, 5))


@pytest.mark.parametrize("steps", [(2, 2), (4, 4), (2, 3)])
def test_interleaved_windows_cost_one_over_their_number(steps: tuple[int, int]) -> None:
    windows = interleaved_windows(24, 24, steps)
    bands = bands_of(24)[2]
    assert sum(windows.num_pairs(band, 24, 24) for band in bands) == 24**4 // (steps[0] * steps[1])
    assert windows.counts(Band(0, 24), 24, 24).eq(1).all()
