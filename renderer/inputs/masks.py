"""Masks that users hand in: pictures that are white, or not black, where something else is wanted.

Shape suffixes: C channels, H rows, W columns, of pixels or of latent cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..errors import PlanError
from .sources import Source, fitted, frames_of

if TYPE_CHECKING:
    import numpy as np

ROWS = 256  # averaged at a time
FULL = 0.98  # what masks of a cell come to that is covered: each is rounded to 1 in 255
LEVELS = 65535  # of a mask that is made soft
RED, BLUE = 0.2126, 0.0722  # their part in luma, Rec. ITU-R BT.709


def check_shape(source: Source, field: str, height: int, width: int) -> None:
    """Raises `PlanError` for a mask whose sides are not as those of a picture, to half a pixel."""
    rows, columns = source.height, source.width
    if abs(columns * height - rows * width) <= max(height, width) / 2:
        return
    beside = (columns, round(columns * height / width)), (round(rows * width / height), rows)
    works = dict.fromkeys(f"{w}x{h}" for w, h in ((width, height), *beside) if min(w, h) > 0)
    raise PlanError(
        f"{field} {source.path!r} is {columns}x{rows} pixels and the picture {width}x{height}: a "
        f"mask of the picture's shape works, as {' or '.join(works)}"
    )


def nearest_cells(
    source: Source, height: int, width: int, num_frames: int = 1
) -> Iterator[np.ndarray]:
    """The mask [1, H, W] for each frame: 1 in cells whose nearest pixel is not black, else 0.

    Raises as `fitted`, to which transparent pixels are white.
    """
    import numpy as np

    size = (source.height, source.width)
    for frame_CHW in fitted(source, *size, num_frames, wanted="numbers"):
        is_inside_HW: np.ndarray = np.any(frame_CHW > -1, axis=0)
        rows = np.arange(height) * source.height // height
        columns = np.arange(width) * source.width // width
        yield is_inside_HW[rows[:, None], columns][None].astype(np.float32)


def cells(source: Source, height: int, width: int) -> np.ndarray:
    """The mask's mean over each of so many cells, [1, H, W] float32: 0 black, 1 white.

    Raises `MediaError` where the file is no longer the one that was looked at.
    """
    (frame_HWC,) = frames_of(source, 1, "numbers")
    return area_means(luma(frame_HWC), height, width)[None]


def feathered(mask_HW: np.ndarray, width: int) -> np.ndarray:
    """The mask with soft edges around it: as it is where it is white, 0 beyond `width` pixels.

    In steps of 1 / 65535, so that what is outside is exactly 0 and what is inside exactly 1.
    """
    import numpy as np

    levels_HW = np.round(mask_HW.clip(0, 1) * LEVELS).astype(np.uint16)
    for _ in range(2 if width else 0):  # along rows, then along columns
        soft_HW = np.empty_like(levels_HW)
        for left in range(0, levels_HW.shape[1], ROWS):  # few at a time, for sums are wide
            part = _spread(levels_HW[:, left : left + ROWS], width - width // 2)
            soft_HW[:, left : left + ROWS] = _softened(part.astype(np.int64), width // 2)
        levels_HW = soft_HW.T
    return np.ascontiguousarray(levels_HW, np.float32) / np.float32(LEVELS)


def _spread(x: np.ndarray, reach: int) -> np.ndarray:
    """The largest of each value and those up to `reach` before and after it in the first dim."""
    import numpy as np

    length, span = x.shape[0], 1
    whole = np.pad(x, ((reach, reach), (0, 0)))
    while span < 2 * reach + 1:
        step = min(span, 2 * reach + 1 - span)
        whole = np.maximum(whole[:-step], whole[step:])
        span += step
    return whole[:length]


def _softened(x: np.ndarray, reach: int) -> np.ndarray:
    """Means over a triangle of `reach` values before and after each, rounded; edges go on."""
    import numpy as np

    for half in (reach // 2, reach - reach // 2):
        whole = np.pad(x, ((half + 1, half), (0, 0)), mode="edge")
        whole[0] = 0
        sums = np.cumsum(whole, axis=0)
        num = 2 * half + 1
        x = (2 * (sums[num:] - sums[:-num]) + num) // (2 * num)
    return x


def check_covered(sources: Sequence[Source], field: str, height: int, width: int) -> None:
    """Raises `PlanError` where masks that have to cover a picture together leave a cell bare."""
    import numpy as np

    covered = np.zeros((1, height, width), np.float32)
    for source in sources:
        covered += cells(source, height, width)
    if (bare := float((covered < FULL).mean())) > 0:
        raise PlanError(
            f"{field}: the masks leave {max(bare, 0.001):.1%} of the picture without a prompt; "
            "give one for the rest, or masks that are white together"
        )


def luma(rgb_HWC: np.ndarray) -> np.ndarray:
    """Rec. 709 luma [H, W] of RGB in [0, 1]; grey is as it is."""
    red, green, blue = (rgb_HWC[..., c] for c in range(3))
    return green + RED * (red - green) + BLUE * (blue - green)


def area_means(x_HW: np.ndarray, height: int, width: int) -> np.ndarray:
    """Means over a grid of cells, each by the area of the pixels that it covers: float32."""
    import numpy as np

    # Rows are averaged last: columns of a few rows are all that is wide and float64.
    tops = range(0, x_HW.shape[0], ROWS)
    narrow = [_means(x_HW[top : top + ROWS].T, width).T for top in tops]
    return _means(np.concatenate(narrow), height).clip(0, 1).astype(np.float32)


def _means(x: np.ndarray, num: int) -> np.ndarray:
    """Means of `num` equal parts of the first dim, the pixels at their edges in part."""
    import numpy as np

    length = x.shape[0]
    sums = np.zeros((length + 1, *x.shape[1:]))
    np.cumsum(x, axis=0, dtype=np.float64, out=sums[1:])
    # Edge i lies at i length / num: so many whole pixels, and a part of the next one.
    whole, part = np.divmod(np.arange(num + 1) * length, num)
    after = sums[np.minimum(whole + 1, length)]
    before = sums[whole]
    edges = before + (after - before) * (part / num)[:, None]
    return np.diff(edges, axis=0) * (num / length)
