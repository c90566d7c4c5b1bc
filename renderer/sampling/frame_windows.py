"""Windows over the frames of a clip that is longer than a model's: how they lie, and their shares.

Each is as long as the clips that the model was trained on, and drawn as if it were one; where
windows overlap their estimates are blended, at every step, so that one motion goes through all
(MultiDiffusion, arXiv 2302.08113, along time).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

OVERLAP = 0.25  # of a window, at least


@dataclass(frozen=True)
class FrameWindow:
    """Frames from `start` up to `stop`, and the share of each one's estimate that is this one's.

    The shares of all windows add up to 1 at every frame.
    """

    start: int
    stop: int
    shares: tuple[float, ...]


def frame_windows(num_frames: int, most: int) -> tuple[FrameWindow, ...]:
    """Windows of `most` frames, evenly laid over `num_frames`; one where these are no more.

    Neighbours overlap by a quarter at least, but for windows of a single frame. Shares rise and
    fall evenly over the frames that two have in common.
    """
    if num_frames <= most:
        return (FrameWindow(0, num_frames, (1.0,) * num_frames),)
    stride = max(1, most - math.ceil(OVERLAP * most))
    number = math.ceil((num_frames - most) / stride) + 1
    starts = [round(index * (num_frames - most) / (number - 1)) for index in range(number)]
    raw = [[_height(frame - start, most) for frame in range(num_frames)] for start in starts]
    sums = [math.fsum(each[frame] for each in raw) for frame in range(num_frames)]
    return tuple(
        FrameWindow(
            start,
            start + most,
            tuple(each[frame] / sums[frame] for frame in range(start, start + most)),
        )
        for start, each in zip(starts, raw, strict=True)
    )


def _height(at: int, length: int) -> float:
    """A triangle over a window's frames, 0 outside."""
    return float(min(at + 1, length - at)) if 0 <= at < length else 0.0
