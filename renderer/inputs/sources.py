"""Pictures and clips that a render starts from: what they are, and their frames at its size.

Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MediaError, PlanError
from ..input_files import fault

if TYPE_CHECKING:
    import numpy as np

    from .colors import Colors

# Of fields: the network is given sRGB, a decoder what it adds to, and masks are no colours.
WANTED: dict[str, Colors] = {"upscale": "own", "mask": "numbers", "edit": "numbers"}


@dataclass(frozen=True)
class Source:
    """A picture or clip: its digest decides, its path may be gone when the render is resumed."""

    path: str
    digest: str
    num_frames: int
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height, self.width

    def as_json(self) -> dict[str, Any]:
        """JSON values from which `Source(**values)` makes it again."""
        return asdict(self)


def look(path: str, field: str, *, num_frames: int) -> Source:
    """What is at a path; raises `PlanError` or `MediaError` where it cannot start this render.

    All frames that the render needs are decoded once: what is damaged, or is no number, shows.
    """
    wanted = WANTED.get(field, "srgb")
    from . import media  # Pillow and PyAV, only where there is something to look at

    frames, height, width, _ = media.peek(path)
    if num_frames == 1 and frames != 1:
        raise PlanError(
            f"{field} {path!r} is a clip of {frames} frames; a picture is wanted"
            + (", or set num_frames for a clip" if field in ("init", "upscale") else "")
        )
    found = sum(1 for _ in media.frames(path, num_frames, wanted))
    if found not in (1, num_frames):
        raise PlanError(
            f"{field} {path!r} has {found} frames; {num_frames} are to be drawn: "
            f"use num_frames {found} or less, or a longer clip"
        )
    return Source(str(Path(path).absolute()), _digest(path), frames, height, width)


def with_alpha(source: Source) -> dict[str, Source]:
    """A picture or clip that is made larger as `upscale`; as `alpha` what of it is transparent."""
    from . import media

    is_transparent = source.num_frames == 1 and media.alpha(source.path) is not None
    return {"upscale": source} | ({"alpha": source} if is_transparent else {})


def transparency(source: Source) -> Iterator[np.ndarray]:
    """Its alpha as a single frame [1, H, W], float32 in [0, 1]; raises as `frames_of`."""
    from . import media

    _check_same(source)
    alpha_HW = media.alpha(source.path)
    assert alpha_HW is not None
    yield alpha_HW[None]


def is_there(source: Source) -> bool:
    """Whether the file is still what the render was begun with."""
    return fault(source.path) is None and _digest(source.path) == source.digest


def fitted(
    source: Source,
    height: int,
    width: int,
    num_frames: int,
    margins: tuple[tuple[int, int], tuple[int, int]] | None = None,
    wanted: Colors = "srgb",
) -> Iterator[np.ndarray]:
    """Frames [3, H, W] in [-1, 1], float32, resized (Lanczos) where the size differs.

    A single picture stands still for as many frames as are asked for. With `margins`, of rows and
    of columns, its edges go on over these first. Raises `MediaError` where the file is no longer
    the one that was looked at.
    """
    import numpy as np

    last_CHW = None
    num_read = 0
    for frame_HWC in frames_of(source, num_frames, wanted):
        num_read += 1
        if margins is not None:
            frame_HWC = np.pad(frame_HWC, (*margins, (0, 0)), mode="edge")
        last_CHW = _latent_range(frame_HWC, height, width)
        yield last_CHW
    for _ in range(num_frames - num_read):
        assert last_CHW is not None
        yield last_CHW


def frames_of(source: Source, num_frames: int, wanted: Colors = "srgb") -> Iterator[np.ndarray]:
    """Its first frames, RGB [H, W, 3] float32 in [0, 1], at its own size, in colours `wanted`.

    Raises `MediaError` where the file is no longer the one that was looked at.
    """
    from . import media

    _check_same(source)
    yield from media.frames(source.path, num_frames, wanted)


def _check_same(source: Source) -> None:
    if fault(source.path) is None and _digest(source.path) != source.digest:
        raise MediaError(f"{source.path} has changed since the render was planned; start it again")


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _latent_range(frame_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """A frame [3, H, W] of that size, in [-1, 1]."""
    import numpy as np

    if frame_HWC.shape[:2] != (height, width):
        frame_HWC = resized(frame_HWC, height, width)
    frame_CHW = np.array(frame_HWC.transpose(2, 0, 1), np.float32, order="C")
    frame_CHW *= 2
    frame_CHW -= 1
    return frame_CHW


def resized(frame_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """A frame in [0, 1] at another size (Lanczos)."""
    import numpy as np
    from PIL import Image

    channels = [
        Image.fromarray(frame_HWC[..., c].astype(np.float32), mode="F").resize(
            (width, height), Image.Resampling.LANCZOS
        )
        for c in range(frame_HWC.shape[2])
    ]
    return np.clip(np.stack([np.asarray(c) for c in channels], axis=-1), 0, 1)
