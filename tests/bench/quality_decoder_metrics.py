"""What is measured of an enlarged demo poster beside the oracle: plain functions on one picture.

Shape legend: H, W pixels, C colours, A angles, R radii; pictures are uint8 [H, W, 3].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from frieze.renderer.demo import oracle

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]

SKY = 0.42  # rows above it are sky alone, in every scene
ANGLES, FAR = 180, 1.25  # of rays from a sun's middle, and how many radii long they are
STRANGE = 20.0  # grey levels of chroma beyond the neighbours' at which a pixel is a fleck
SLIGHT, PERIOD = 8, 16  # grey levels that seams have at most; pixels
AROUND, BOX = 17, 5  # pixels of the neighbourhood, and of the boxes that it is averaged over


def psnr(picture_HWC: Pixels, truth_HWC: Pixels) -> float:
    """Against another picture, in dB."""
    error = picture_HWC.astype(np.float64) - truth_HWC
    return float(10 * np.log10(255**2 / np.mean(error**2)))


def halved(picture_HWC: Pixels, factor: int = 2) -> Floats:
    """Means of boxes of pixels, grey levels."""
    height, width = (side // factor for side in picture_HWC.shape[:2])
    boxes = picture_HWC[: height * factor, : width * factor]
    means: Floats = boxes.reshape(height, factor, width, factor, 3).mean((1, 3))
    return means


def away(picture_HWC: Pixels, half_HWC: Pixels) -> float:
    """Mean distance of a picture, averaged to half the size, from one of that size; grey levels."""
    return float(np.abs(halved(picture_HWC) - half_HWC).mean())


def radius_variation(picture_HWC: Pixels) -> float:
    """Deviation of the largest sun's radius from a circle's, over the radius.

    Of its part above the ridges. A ray's radius is how much of it is sun, so that a soft rim is as
    round as a hard one, and a ragged one is not. NaN where there is no sun.
    """
    found = _sun(picture_HWC)
    if found is None:
        return float("nan")
    (y, x), radius, sun_C = found
    angle_A = (np.arange(ANGLES) + 0.5) * 2 * np.pi / ANGLES
    step_R = np.arange(0.25, FAR * radius, 0.5)
    y_AR = y + np.sin(angle_A)[:, None] * step_R
    x_AR = x + np.cos(angle_A)[:, None] * step_R
    height, width = picture_HWC.shape[:2]
    is_sky_A = (
        (y_AR[:, -1] >= 0)
        & (y_AR.max(1) < SKY * height)
        & (x_AR.min(1) >= 0)
        & (x_AR.max(1) <= width - 1)
    )
    if is_sky_A.sum() < ANGLES // 6:
        return float("nan")
    y_AR, x_AR = y_AR[is_sky_A], x_AR[is_sky_A]
    cover_AR = _cover(_sampled(picture_HWC, y_AR, x_AR), sun_C)
    radius_A = cover_AR.sum(1) * 0.5
    points_A2 = (
        np.stack([np.sin(angle_A[is_sky_A]), np.cos(angle_A[is_sky_A])], 1) * radius_A[:, None]
    )
    return _from_circle(points_A2)


def _sun(picture_HWC: Pixels) -> tuple[tuple[float, float], float, Floats] | None:
    """Middle, radius and colour of the largest sun above the ridges."""
    parts = oracle.suns(picture_HWC)
    if not parts:
        return None
    mask_HW = max(parts, key=lambda part: int(part.sum()))
    scale = picture_HWC.shape[0] / mask_HW.shape[0]
    rows, columns = np.nonzero(mask_HW)
    radius = scale * max(np.ptp(rows) + 1, np.ptp(columns) + 1) / 2
    middle = (
        scale * (rows.min() + (np.ptp(columns) + 1) / 2),  # its foot may be behind a ridge
        scale * (columns.min() + columns.max() + 1) / 2,
    )
    sun_C = np.median(oracle.reduce(picture_HWC)[mask_HW], axis=0) * 255
    return middle, float(radius), sun_C


def _cover(line_ARC: Floats, sun_C: Floats) -> Floats:
    """How much of each place along rays is sun, between the sky at their ends and the sun."""
    sky_A1C = np.median(line_ARC[:, -max(2, line_ARC.shape[1] // 8) :], axis=1, keepdims=True)
    span_A1C = sun_C - sky_A1C
    cover_AR: Floats = ((line_ARC - sky_A1C) * span_A1C).sum(-1) / (span_A1C**2).sum(-1)
    return np.clip(cover_AR, 0, 1)


def _sampled(picture_HWC: Pixels, y: Floats, x: Floats) -> Floats:
    """Bilinear, between the middles of pixels."""
    y, x = (
        np.clip(y - 0.5, 0, len(picture_HWC) - 1.001),
        np.clip(x - 0.5, 0, picture_HWC.shape[1] - 1.001),
    )
    top, left = y.astype(int), x.astype(int)
    down, right = (y - top)[..., None], (x - left)[..., None]
    above = picture_HWC[top, left] * (1 - right) + picture_HWC[top, left + 1] * right
    below = picture_HWC[top + 1, left] * (1 - right) + picture_HWC[top + 1, left + 1] * right
    found: Floats = above * (1 - down) + below * down
    return found


def _from_circle(points_A2: Floats) -> float:
    """RMS distance of points from the circle nearest to them (Kasa's), over its radius."""
    ones = np.ones((len(points_A2), 1))
    solved, *_ = np.linalg.lstsq(
        np.concatenate([2 * points_A2, ones], 1), (points_A2**2).sum(1), rcond=None
    )
    radius = np.sqrt(solved[2] + (solved[:2] ** 2).sum())
    off_A = np.linalg.norm(points_A2 - solved[:2], axis=1) - radius
    return float(np.sqrt(np.mean(off_A**2)) / radius)


def flecks(picture_HWC: Pixels) -> float:
    """Pixels a million whose colour is no mix of what is around them, light or dark.

    Their chroma (R - G, and yellow less blue) is farther from grey than that of any box of their
    neighbourhood. Near a star and at a soft edge it is not: these are mixes.
    """
    chroma_1CHW = _chroma(picture_HWC)
    means = F.avg_pool2d(chroma_1CHW, BOX, 1, BOX // 2, count_include_pad=False)
    most, least = _maxima(means).clamp_min(0), -_maxima(-means).clamp_min(0)
    beyond = torch.maximum(chroma_1CHW - most, least - chroma_1CHW).amax(1)
    return float((beyond > STRANGE).double().mean() * 1e6)


def _maxima(x_1CHW: Tensor) -> Tensor:
    """The largest around each pixel."""
    rows = F.max_pool2d(x_1CHW, (AROUND, 1), 1, (AROUND // 2, 0))
    return F.max_pool2d(rows, (1, AROUND), 1, (0, AROUND // 2))


def _chroma(picture_HWC: Pixels) -> Tensor:
    red, green, blue = torch.from_numpy(picture_HWC.copy()).float().permute(2, 0, 1)
    return torch.stack([red - green, (red + green) / 2 - blue])[None]


def seam(picture_HWC: Pixels, edges: Sequence[int], dim: int = 0) -> tuple[float, float]:
    """How steep a picture is across edges, and how steep around: alike where there is no seam.

    Mean absolute difference of neighbours at the edges, and at lines up to 32 beside them that are
    whole `PERIOD`s away: tokens and cells end there as at the edge, so that a grid is no seam. Each
    counts up to `SLIGHT` grey levels: the picture's own edges are not what is looked for.
    """
    steep = _steepness(picture_HWC, dim)
    at = {edge - 1 for edge in edges if 0 < edge <= len(steep)}
    lines = {line + PERIOD * turn for line in at for turn in range(-2, 3)} - at
    beside = [line for line in sorted(lines) if 0 <= line < len(steep)]
    return float(steep[sorted(at)].mean()), float(steep[beside].mean())


def grid(picture_HWC: Pixels, period: int = 8) -> float:
    """The steepest phase of columns and rows over the flattest, by their place in a token."""
    ratios = []
    for dim in (0, 1):
        steep = _steepness(picture_HWC, dim)
        phases = [steep[phase::period].mean() for phase in range(period)]
        ratios.append(max(phases) / min(phases))
    return float(max(ratios))


def _steepness(picture_HWC: Pixels, dim: int) -> Floats:
    """Mean absolute difference of each line along a side and the next."""
    lines = np.moveaxis(picture_HWC.astype(np.int16), dim, 0)
    steep: Floats = np.minimum(np.abs(np.diff(lines, axis=0)), SLIGHT).mean((1, 2))
    return steep


def drift(picture_HWC: Pixels, low_HWC: Pixels, block: int = 128) -> float:
    """How far the tone of the worst block is from that of the small picture's; grey levels.

    Means over blocks of each colour; the two pictures have the same layout.
    """
    factor = picture_HWC.shape[0] // low_HWC.shape[0]
    means, others = halved(picture_HWC, block), halved(low_HWC, block // factor)
    return float(np.abs(means - others).max())
