"""What the quality benchmark measures of pictures, and how sure it is: plain functions on arrays.

Shape legend: N, M pictures, K crops of each, F features, T lags, H rows, W columns, C colours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.floating]
Pixels = NDArray[np.uint8]

NATIVE = 256  # pixels of a side that the demo model was trained at
TOKEN = 16  # pixels of a token's side
CELL = 8  # pixels: the step of lags
THETA, AXIS_DIM = 10000.0, 32
OVERLAP = 1.5  # a lag leaves at least a third of the picture to compare
DRAWS = 1000
REDUCED = 160  # pixels of the shorter side that pictures are compared at
SKY = 0.4


@dataclass(frozen=True)
class Estimate:
    """A figure and its bootstrap interval of 95 %."""

    value: float
    low: float
    high: float


def rms(picture_HWC: Pixels, other_HWC: Pixels, side: int = REDUCED) -> float:
    """Root mean square of what two pictures differ by in grey levels, where reduced.

    To so many pixels of the shorter side: what is the same there is the same picture to the eye.
    """
    a_HWC, b_HWC = (_reduced(picture, side) for picture in (picture_HWC, other_HWC))
    return float(np.sqrt(((a_HWC - b_HWC) ** 2).mean()))


def _reduced(picture_HWC: Pixels, side: int) -> NDArray[np.float64]:
    height, width = picture_HWC.shape[:2]
    size = tuple(round(side * x / min(height, width)) for x in (width, height))
    small = Image.fromarray(picture_HWC).resize(size, Image.Resampling.BOX)
    return np.asarray(small, np.float64)


def border_step(picture_HWC: Pixels, every: int = NATIVE // TOKEN // 2) -> float:
    """By how much more the sky steps at borders of windows than elsewhere, grey levels.

    Cells are as large as tokens, borders those of windows of half the trained size, and so of all
    larger ones; of both directions the larger mean, in the upper 40 % of the picture.
    """
    height, width = (length // TOKEN for length in picture_HWC.shape[:2])
    boxes = picture_HWC[: height * TOKEN, : width * TOKEN].reshape(height, TOKEN, width, TOKEN, 3)
    sky_HW = boxes.mean((1, 3, 4))[: max(2, int(SKY * height))]
    found = []
    for axis in (0, 1):
        steps = np.abs(np.diff(sky_HW, axis=axis)).mean(1 - axis)
        is_border = (np.arange(len(steps)) + 1) % every == 0
        if is_border.any() and not is_border.all():
            found.append(float(steps[is_border].mean() - steps[~is_border].mean()))
    return max(found, default=float("nan"))


def dominant_period(trained: int = NATIVE // TOKEN) -> float:
    """Period in tokens of the rotary frequency nearest to the trained length (arXiv 2512.04504)."""
    periods = [2 * math.pi * THETA ** (2 * j / AXIS_DIM) for j in range(AXIS_DIM // 2)]
    return min(periods, key=lambda period: abs(period - trained))


def lags(cells: int) -> range:
    """Lags in cells around the dominant period, 0.8 to 1.2 of it; none where the side is short."""
    period = dominant_period() * TOKEN / CELL
    return range(math.ceil(0.8 * period), min(int(1.2 * period), int(cells / OVERLAP)) + 1)


def lag_profile(picture_HWC: Pixels, axis: int) -> NDArray[np.float64]:
    """Correlation of a picture with itself, shifted along an axis by each of `lags`: [T].

    In colour, on cells of 8 x 8 pixels. Every line along the axis has its mean over the part that
    is compared taken away: what is the same all along a line, as a sky along its rows, is no
    repetition, nor is it one where a sun between the parts makes both look dark beside it.
    """
    cells_HWC = np.moveaxis(_cells(picture_HWC), axis, 0)
    parts = [(cells_HWC[:-lag], cells_HWC[lag:]) for lag in lags(len(cells_HWC))]
    return np.array([_correlation(a - a.mean(0), b - b.mean(0)) for a, b in parts])


def _cells(picture_HWC: Pixels) -> NDArray[np.float64]:
    height, width = (side // CELL for side in picture_HWC.shape[:2])
    boxes = picture_HWC[: height * CELL, : width * CELL].reshape(height, CELL, width, CELL, 3)
    return boxes.mean((1, 3)) / 255


def _correlation(a: Floats, b: Floats) -> float:
    """Of two parts of mean 0; 0 where one of them is flat."""
    norm = math.sqrt(float((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 1e-9 else 0.0


def repetition(profiles_NT: Floats, real_T: Floats) -> tuple[Floats, Floats]:
    """R [N], the most that pictures repeat themselves beyond real ones, and its lag in tokens [N].

    R = max over lags of NCC minus the mean NCC of real scenes of that size at the same lag; NaN
    where a side is too short for any.
    """
    excess_NT = profiles_NT - real_T
    if not excess_NT.shape[1]:
        nothing = np.full(len(excess_NT), np.nan)
        return nothing, nothing
    first = math.ceil(0.8 * dominant_period() * TOKEN / CELL)
    return excess_NT.max(1), (first + excess_NT.argmax(1)) * CELL / TOKEN


def crops(picture_HWC: Pixels, side: int = NATIVE) -> list[Pixels]:
    """Windows of side x side that cover a picture evenly, row by row; as few as cover it."""
    tops, lefts = (
        np.linspace(0, length - side, math.ceil(length / side)).round().astype(int)
        for length in picture_HWC.shape[:2]
    )
    return [picture_HWC[y : y + side, x : x + side] for y in tops for x in lefts]


def kernels(x_NKF: Floats, y_MKF: Floats) -> NDArray[np.float64]:
    """[N, M] of (x.y / F + 1)^3 (KID, arXiv 1801.01401), the mean over pairs of crops."""
    (n, k, f), (m, j, _) = x_NKF.shape, y_MKF.shape
    x, y = x_NKF.reshape(n * k, f).astype(np.float64), y_MKF.reshape(m * j, f).astype(np.float64)
    return ((x @ y.T / f + 1) ** 3).reshape(n, k, m, j).mean((1, 3))


def kid(x_NKF: Floats, y_NJF: Floats, rng: np.random.Generator) -> Estimate:
    """Kernel distance of pictures x and real scenes y, where x_n and y_n have the same prompt.

    The unbiased estimate over pairs of prompts (Gretton et al., JMLR 13, 2012, lemma 6): no term is
    within one prompt, so that crops of a picture, and pictures of a prompt, may be alike. Raises
    ValueError for fewer than two, or for sets of different lengths.
    """
    return _over_prompts(_terms(x_NKF, y_NJF), rng)


def kid_difference(
    x_NKF: Floats, z_NKF: Floats, y_NJF: Floats, rng: np.random.Generator
) -> Estimate:
    """How much farther pictures x are from real scenes y than pictures z of the same prompts.

    The prompts that make both near or far cancel, so that this tells more than two intervals do.
    Raises ValueError as `kid` does.
    """
    return _over_prompts(_terms(x_NKF, y_NJF) - _terms(z_NKF, y_NJF), rng)


def _terms(x_NKF: Floats, y_NJF: Floats) -> NDArray[np.float64]:
    """[N, N], whose mean off the diagonal is the distance."""
    if len(x_NKF) != len(y_NJF) or len(x_NKF) < 2:
        raise ValueError(f"{len(x_NKF)} and {len(y_NJF)} prompts; a distance needs the same two")
    across_NN = kernels(x_NKF, y_NJF)
    return kernels(x_NKF, x_NKF) + kernels(y_NJF, y_NJF) - across_NN - across_NN.T


def _over_prompts(terms_NN: Floats, rng: np.random.Generator) -> Estimate:
    n = len(terms_NN)
    drawn = [_off_diagonal(terms_NN, _resampled(n, rng)) for _ in range(DRAWS)]
    return Estimate(_off_diagonal(terms_NN, np.ones(n)), *np.nanquantile(drawn, (0.025, 0.975)))


def _off_diagonal(kernel_NN: Floats, weight_N: Floats) -> float:
    """Weighted mean over pairs of different prompts; NaN where one prompt has all the weight."""
    pairs = weight_N.sum() ** 2 - (weight_N**2).sum()
    if not pairs:
        return float("nan")
    return float((weight_N @ kernel_NN @ weight_N - weight_N**2 @ np.diag(kernel_NN)) / pairs)


def _resampled(number: int, rng: np.random.Generator) -> Floats:
    """How often each prompt is in a sample drawn with replacement."""
    return np.bincount(rng.integers(number, size=number), minlength=number).astype(np.float64)


def mean(values: Sequence[float] | Floats, rng: np.random.Generator) -> Estimate:
    """The mean over pictures; NaN throughout where there is a NaN among them or nothing."""
    values_N = np.asarray(values, np.float64)
    if not len(values_N) or np.isnan(values_N).any():
        return Estimate(*[float("nan")] * 3)
    drawn = values_N[rng.integers(len(values_N), size=(DRAWS, len(values_N)))].mean(1)
    return Estimate(float(values_N.mean()), *np.quantile(drawn, (0.025, 0.975)))


def share(hits: Sequence[bool] | NDArray[np.bool_]) -> Estimate:
    """The share of pictures, with Wilson's interval: all of few is not yet all."""
    n, p, z = len(hits), float(np.mean(hits)), 1.96
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Estimate(p, min(p, middle - half), max(p, middle + half))


def ratio(values_N: Floats, real_N: Floats, rng: np.random.Generator) -> Estimate:
    """The mean over pictures relative to that over real scenes of the same prompts."""
    values_N, real_N = np.asarray(values_N, np.float64), np.asarray(real_N, np.float64)
    drawn = rng.integers(len(values_N), size=(DRAWS, len(values_N)))
    spread = values_N[drawn].mean(1) / real_N[drawn].mean(1)
    found = float(values_N.mean() / real_N.mean())
    return Estimate(found, *np.quantile(spread, (0.025, 0.975)))
