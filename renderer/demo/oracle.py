"""Read a demo poster of any size: suns, their colour, sky above mountains, detail, stray firs.

The ground truth by which models, methods and settings are compared. Shape legend: H, W pixels of
the reduced picture (shorter side 160), C = 3 colours, values 0-1 unless said otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .scenes import LIGHT, MOUNTAINS, SKIES, SUNS, parse

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]

REDUCED = 160
SMALLEST_SUN = 0.0007  # area as a fraction of the shorter side squared: a diameter of 3 %
TILE = 256
# Of firs that hang in the air: the side of the picture they are looked for in, the least area as a
# fraction of the shorter side squared (a square of 4 pixels at 512), and how much nearer to the
# front ridge than the darkest of the rest their colour is.
FIRS_AT, SMALLEST_FIR, FIR_COLOUR = 512, 6e-5, 0.4


@dataclass(frozen=True)
class Verdict:
    """What a picture shows; `detail` is the RMS above 1/4 cycle per pixel, in grey levels."""

    suns: int
    colours: tuple[str, ...]
    upright: bool
    time: str
    mountains: str
    detail: float


@dataclass(frozen=True)
class Scores:
    """Shares of pictures with exactly one sun, the asked colour, the asked sky and mountains."""

    one_sun: float
    colour: float
    landscape: float


def judge(picture_HWC: Pixels) -> Verdict:
    """Judge a uint8 (H, W, 3) picture; raises ValueError for another shape or a side under 64."""
    if picture_HWC.ndim != 3 or picture_HWC.shape[2] != 3 or min(picture_HWC.shape[:2]) < 64:
        raise ValueError(f"picture of shape {picture_HWC.shape}; expected (H >= 64, W >= 64, 3)")
    small_HWC = reduce(picture_HWC)
    names_HW = _sun_colours(small_HWC)
    colours = tuple(
        str(_majority(names_HW[part_HW])) for part_HW in _components(names_HW != "", small_HWC)
    )
    time = _time(small_HWC, names_HW != "")
    return Verdict(
        suns=len(colours),
        colours=colours,
        upright=_upright(small_HWC, names_HW != ""),
        time=time,
        mountains=_mountains(small_HWC, time),
        detail=detail(picture_HWC),
    )


def suns(picture_HWC: Pixels) -> list[NDArray[np.bool_]]:
    """A mask [H, W] of the reduced picture for each sun that is counted."""
    small_HWC = reduce(picture_HWC)
    return _components(_sun_colours(small_HWC) != "", small_HWC)


def agrees(verdict: Verdict, prompt: str) -> bool:
    """Tell whether a picture shows exactly what a prompt of the grammar asks for."""
    return _colour_agrees(verdict, prompt) and _landscape_agrees(verdict, prompt)


def score(pictures: Sequence[Pixels] | Pixels, prompts: Sequence[str]) -> Scores:
    """Judge pictures against their prompts and give the three shares."""
    verdicts = [judge(picture) for picture in pictures]
    pairs = list(zip(verdicts, prompts, strict=True))
    return Scores(
        one_sun=float(np.mean([verdict.suns == 1 for verdict in verdicts])),
        colour=float(np.mean([_colour_agrees(*pair) for pair in pairs])),
        landscape=float(np.mean([_landscape_agrees(*pair) for pair in pairs])),
    )


def detail(picture_HWC: Pixels, above: float = 0.25) -> float:
    """RMS in grey levels of the luma above a frequency (cycles per pixel), the mean over tiles."""
    luma_HW = picture_HWC @ np.array((0.299, 0.587, 0.114), np.float32)
    size = min(TILE, *luma_HW.shape)
    taper = np.hanning(size).astype(np.float32)
    taper_HW = taper[:, None] * taper / np.mean(taper**2)
    high_HW = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)) > above
    rows, columns = (luma_HW.shape[0] // size, luma_HW.shape[1] // size)
    energy = []
    for row in range(rows):
        for column in range(columns):
            tile_HW = luma_HW[row * size : (row + 1) * size, column * size : (column + 1) * size]
            power = np.abs(np.fft.rfft2((tile_HW - tile_HW.mean()) * taper_HW)) ** 2
            energy.append(2 * float(power[high_HW].sum()) / size**4)
    return float(np.sqrt(np.mean(energy)))


def stray_firs(picture_HWC: Pixels) -> int:
    """Pieces of the front ridge's colour that do not stand on it; no scene has any.

    A gap of a pixel at 512 joins. 0 too where the front ridge is not the darkest of the picture.
    """
    small_HWC = reduce(picture_HWC, FIRS_AT)
    front_C, *others = (
        np.median(_rows(small_HWC, *rows).reshape(-1, 3), axis=0)
        for rows in ((0.95, 1), (0, 0.08), (0.3, 0.42), (0.77, 0.82))
    )
    near = FIR_COLOUR * min(float(np.linalg.norm(other - front_C)) for other in others)
    dark_HW = np.linalg.norm(small_HWC - front_C, axis=-1) < near
    labels_HW = _labels(_grown(dark_HW))
    ground = np.unique(labels_HW[int(0.95 * len(labels_HW)) :])
    labels, areas = np.unique(labels_HW[dark_HW], return_counts=True)
    smallest = SMALLEST_FIR * min(small_HWC.shape[:2]) ** 2
    return int(((areas >= smallest) & ~np.isin(labels, ground)).sum())


def reduce(picture_HWC: Pixels, side: int = REDUCED) -> Floats:
    """Average boxes of pixels until the shorter side is at most so long; float32 in 0-1."""
    height, width = picture_HWC.shape[:2]
    scale = max(1.0, min(height, width) / side)
    rows = np.linspace(0, height, round(height / scale) + 1).astype(int)
    columns = np.linspace(0, width, round(width / scale) + 1).astype(int)
    sums = np.add.reduceat(picture_HWC, rows[:-1], axis=0, dtype=np.uint32)
    sums = np.add.reduceat(sums, columns[:-1], axis=1)
    area_HW = np.diff(rows)[:, None] * np.diff(columns)
    return (sums / (255.0 * area_HW[..., None])).astype(np.float32)


def _sun_colours(small_HWC: Floats) -> NDArray[np.str_]:
    """Name the sun colour of every pixel vivid or white enough to belong to a sun, else ''."""
    high_HW, low_HW = small_HWC.max(-1), small_HWC.min(-1)
    span_HW = high_HW - low_HW
    vivid_HW = (span_HW > 0.55 * high_HW) & (high_HW > 0.68)
    hue_HW = _hue(small_HWC)
    names = [name for name in SUNS if name != "white"]
    hue_N = _hue(np.array([SUNS[name] for name in names], np.float32) / np.float32(255))
    away_NHW = np.abs((hue_HW - hue_N[:, None, None] + 0.5) % 1 - 0.5)
    known_HW = vivid_HW & (away_NHW.min(0) < 0.06)
    names_HW = np.where(known_HW, np.array(names)[away_NHW.argmin(0)], "")
    return np.where(low_HW > 0.87, "white", names_HW)


def _hue(colours_C: Floats) -> Floats:
    """Angle on the colour wheel in turns, red at 0; alpha-beta form of the hexagon's hue."""
    red, green, blue = colours_C[..., 0], colours_C[..., 1], colours_C[..., 2]
    return np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue) / (2 * np.pi)


def _components(mask_HW: NDArray[np.bool_], small_HWC: Floats) -> list[NDArray[np.bool_]]:
    """Connected parts large enough for a sun; a gap of two pixels (a twig, a blur) joins."""
    labels_HW = _labels(_grown(mask_HW))
    labels, areas = np.unique(labels_HW[mask_HW], return_counts=True)
    smallest = SMALLEST_SUN * min(small_HWC.shape[:2]) ** 2
    return [(labels_HW == label) & mask_HW for label in labels[areas >= smallest]]


def _grown(mask_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """With the pixels around, those at corners too."""
    for _ in range(2):
        edge = np.pad(mask_HW, ((1, 1), (0, 0)))
        mask_HW = (edge[:-2] | edge[1:-1] | edge[2:]).T
    return mask_HW


def _labels(mask_HW: NDArray[np.bool_]) -> NDArray[np.int64]:
    """A number for each part whose pixels touch by their sides, 0 outside."""
    labels_HW = np.where(mask_HW, np.arange(1, mask_HW.size + 1).reshape(mask_HW.shape), 0)
    while True:
        spread_HW = _run_maxima(_run_maxima(labels_HW).T).T
        if np.array_equal(spread_HW, labels_HW):
            return labels_HW
        labels_HW = spread_HW


def _run_maxima(labels_HW: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each run of a row that is not 0 has its largest number throughout."""
    flat = np.pad(labels_HW, ((0, 0), (0, 1))).ravel()
    starts = np.concatenate(([0], np.flatnonzero(np.diff(flat > 0)) + 1))
    lengths = np.diff(np.concatenate((starts, [flat.size])))
    spread = np.repeat(np.maximum.reduceat(flat, starts), lengths)
    return spread.reshape(len(labels_HW), -1)[:, :-1]


def _majority(names: NDArray[np.str_]) -> str:
    values, counts = np.unique(names, return_counts=True)
    return str(values[counts.argmax()])


def _rows(small_HWC: Floats, start: float, stop: float) -> Floats:
    height = len(small_HWC)
    return small_HWC[int(start * height) : max(int(stop * height), int(start * height) + 1)]


def _time(small_HWC: Floats, sun_HW: NDArray[np.bool_]) -> str:
    """Name the hour whose zenith is nearest to the median colour of the top rows."""
    top_HWC = _rows(small_HWC, 0, 0.08)
    median_C = np.median(top_HWC[~sun_HW[: len(top_HWC)]], axis=0)
    return min(SKIES, key=lambda time: float(np.abs(median_C * 255 - SKIES[time][0]).sum()))


def _mountains(small_HWC: Floats, time: str) -> str:
    """Name the mountains by the colour direction of the third ridge's rows."""
    median_C = np.median(_rows(small_HWC, 0.77, 0.82).reshape(-1, 3), axis=0)

    def away(name: str) -> float:
        own_C = np.array(MOUNTAINS[name], np.float32) * (0.62 * LIGHT[time])
        misty_C = own_C + 0.15 * (np.array(SKIES[time][1], np.float32) - own_C)
        return float(np.abs(median_C / (median_C.sum() + 1e-3) - misty_C / misty_C.sum()).sum())

    return min(MOUNTAINS, key=away)


def _upright(small_HWC: Floats, sun_HW: NDArray[np.bool_]) -> bool:
    """Tell whether the bottom is the dark ridge: darker than the zenith and than the horizon."""
    luma_HW = np.where(sun_HW, np.nan, small_HWC @ np.array((0.299, 0.587, 0.114), np.float32))
    top, low, near, bottom = (
        float(np.nanmedian(_rows(luma_HW, *rows)))
        for rows in ((0, 0.08), (0.3, 0.42), (0.77, 0.82), (0.93, 1))
    )
    return bottom < 0.75 * top and bottom < near < low


def _colour_agrees(verdict: Verdict, prompt: str) -> bool:
    return verdict.colours == (parse(prompt).sun,)


def _landscape_agrees(verdict: Verdict, prompt: str) -> bool:
    asked = parse(prompt)
    return verdict.upright and (verdict.time, verdict.mountains) == (asked.time, asked.mountains)
