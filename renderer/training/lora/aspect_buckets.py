"""Sizes of about one area, so that pictures of other shapes are learned from nearly whole.

Known as aspect ratio bucketing (NovelAI, 2022), which trainers of LoRAs have taken up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Size = tuple[int, int]  # rows, columns

STEPS = 16  # a side of a square grows by this part of it
MOST_RATIO = 2.0  # of a longer side to the shorter one, but for the size that was asked for


def buckets(size: Size, unit: int) -> tuple[Size, ...]:
    """The size that was asked for, and sizes of about its area in whole units of pixels."""
    side = math.sqrt(size[0] * size[1])
    step = unit * max(1, round(side / STEPS / unit))
    found = [size]
    least, most = side / math.sqrt(MOST_RATIO), side * math.sqrt(MOST_RATIO)
    for rows in range(step, math.ceil(most) + step, step):
        columns = step * round(side * side / rows / step)
        if min(rows, columns) >= least - step / 2 and _ratio(rows, columns) <= MOST_RATIO:
            found.append((rows, columns))
    return tuple(dict.fromkeys(found))


def bucket(sizes: Sequence[Size], height: int, width: int) -> Size | None:
    """Of the sizes that a picture covers that of which the shape is nearest to its own."""
    covered = [each for each in sizes if each[0] <= height and each[1] <= width]
    own = math.log(height / width)
    return min(covered, key=lambda each: abs(math.log(each[0] / each[1]) - own), default=None)


def _ratio(rows: int, columns: int) -> float:
    return max(rows, columns) / min(rows, columns)
