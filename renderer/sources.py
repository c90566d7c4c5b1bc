"""Pictures and clips that a render starts from: what they are, and their frames at its size.

Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import PlanError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Source:
    """A picture or clip: its digest decides, its path may be gone when the render is resumed."""

    path: str
    digest: str
    num_frames: int
    height: int
    width: int

    def as_json(self) -> dict[str, Any]:
        """JSON values from which `Source(**values)` makes it again."""
        return asdict(self)


def look(path: str, field: str, *, num_frames: int) -> Source:
    """What is at a path; raises `PlanError` or `MediaError` where it cannot start this render."""
    from . import media  # Pillow and PyAV, only where there is something to look at

    frames, height, width, _ = media.peek(path)
    if num_frames == 1 and frames != 1:
        raise PlanError(
            f"{field} {path!r} is a clip of {frames} frames; a picture is wanted, "
            "or set num_frames for a clip"
        )
    if frames not in (1, num_frames) and frames < num_frames:
        raise PlanError(
            f"{field} {path!r} has {frames} frames; {num_frames} are to be drawn: "
            f"use num_frames {frames} or less, or a longer clip"
        )
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return Source(str(Path(path).absolute()), digest, frames, height, width)


def fitted(source: Source, height: int, width: int, num_frames: int) -> Iterator[np.ndarray]:
    """Frames [3, H, W] in [-1, 1], float32, resized (Lanczos) where the size differs.

    A single picture stands still for as many frames as are asked for.
    """
    import numpy as np

    from . import media

    frames_THWC = media.read(source.path, num_frames).frames_THWC
    for index in range(num_frames):
        frame_HWC = frames_THWC[min(index, len(frames_THWC) - 1)]
        if frame_HWC.shape[:2] != (height, width):
            frame_HWC = _resized(frame_HWC, height, width)
        yield np.ascontiguousarray(frame_HWC.transpose(2, 0, 1) * 2 - 1, dtype=np.float32)


def _resized(frame_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    import numpy as np
    from PIL import Image

    channels = [
        Image.fromarray(frame_HWC[..., c].astype(np.float32), mode="F").resize(
            (width, height), Image.Resampling.LANCZOS
        )
        for c in range(3)
    ]
    return np.clip(np.stack([np.asarray(c) for c in channels], axis=-1), 0, 1)
