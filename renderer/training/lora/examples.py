"""What a LoRA is trained on: pictures or clips, each with its caption and its size.

Shape suffixes: C channels (3), T frames, H rows, W columns.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ...autoencoders.infgen_positions import Window
from ...errors import MediaError
from ...input_files import fault
from ...inputs import media
from ..pictures.picture_folder import scaled
from ..pictures.sources import FIRST_SEED, SCENES_MODULE
from .aspect_buckets import Size


@dataclass(frozen=True)
class Example:
    """A picture or clip in a file, what it was when it was found, its caption, and its size."""

    path: str
    num_bytes: int
    caption: str
    size: Size  # that it is learned at


class Source(Protocol):
    """Pictures or clips, by their numbers."""

    def caption(self, number: int) -> str:
        """What it shows."""

    def size(self, number: int) -> Size:
        """Its rows and columns."""

    def key(self, number: int) -> str:
        """A name by all that decides its pixels."""

    def pixels(self, number: int) -> Tensor:
        """[1, 3, T, H, W] in [-1, 1]."""

    def __len__(self) -> int:
        """How many there are."""


@dataclass(frozen=True)
class Examples:
    """What a rank opens a source by: files and their frames, or as many scenes of a size."""

    files: tuple[Example, ...] = ()
    scenes: int = 0
    size: Size = (0, 0)
    num_frames: int = 1

    def __len__(self) -> int:
        return len(self.files) or self.scenes

    def opened(self) -> Source:
        """The source itself, on this machine."""
        if self.files:
            return FileExamples(self.files, self.num_frames)
        return SceneExamples(self.scenes, self.size)


class FileExamples:
    """Pictures or clips of a folder: of each the middle of its size's shape, reduced (Lanczos)."""

    def __init__(self, files: Sequence[Example], num_frames: int) -> None:
        self.files, self.num_frames = files, num_frames

    def caption(self, number: int) -> str:
        """As it was found."""
        return self.files[number].caption

    def size(self, number: int) -> Size:
        """As it was chosen."""
        return self.files[number].size

    def key(self, number: int) -> str:
        """By path, bytes and sizes."""
        told = asdict(self.files[number]) | {"frames": self.num_frames}
        del told["caption"]
        return hashlib.sha256(repr(sorted(told.items())).encode()).hexdigest()[:24]

    def pixels(self, number: int) -> Tensor:
        """The first frames of the file; raises `MediaError` for one that is another by now."""
        file = self.files[number]
        if fault(file.path) is not None or os.path.getsize(file.path) != file.num_bytes:
            raise MediaError(f"{file.path} has changed since it was found; start it again")
        frames = [_covering(f, file.size) for f in media.frames(file.path, self.num_frames)]
        return torch.stack(frames, dim=2)

    def __len__(self) -> int:
        return len(self.files)


class SceneExamples:
    """The demo's procedural scenes, drawn at the size, and their prompts."""

    def __init__(self, number: int, size: Size) -> None:
        self.number, self.of_all = number, size
        self.scenes: Any = importlib.import_module(SCENES_MODULE)

    def caption(self, number: int) -> str:
        """The prompt of a scene."""
        prompt: str = self.scenes.prompt_of(self.scenes.scene_from(FIRST_SEED + number))
        return prompt

    def size(self, number: int) -> Size:
        """That of all."""
        return self.of_all

    def key(self, number: int) -> str:
        """By seed and size."""
        return f"scene-{FIRST_SEED + number}-{self.of_all[1]}x{self.of_all[0]}"

    def pixels(self, number: int) -> Tensor:
        """The scene."""
        scene = self.scenes.scene_from(FIRST_SEED + number)
        pixels_HWC = self.scenes.draw(scene, *self.of_all)
        return torch.from_numpy(pixels_HWC).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1

    def __len__(self) -> int:
        return self.number


def covered(height: int, width: int, size: Size) -> Size:
    """Rows and columns of the middle of a picture that has the shape of `size`."""
    scale = min(height / size[0], width / size[1])
    return round(size[0] * scale), round(size[1] * scale)


def _covering(frame_HWC: np.ndarray, size: Size) -> Tensor:
    """The middle of a frame, reduced to a size: [1, 3, H, W] in [-1, 1]."""
    height, width = covered(frame_HWC.shape[0], frame_HWC.shape[1], size)
    top = (frame_HWC.shape[0] - height) // 2
    left = (frame_HWC.shape[1] - width) // 2
    part_HWC = frame_HWC[top : top + height, left : left + width]
    levels_HWC = np.rint(part_HWC * 255).astype(np.uint8)
    return scaled(levels_HWC, Window.whole(size))
