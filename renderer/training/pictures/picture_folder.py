"""Pictures of a folder as a decoder is trained on them: found, checked, and had in parts.

Shape suffixes: C channels (3), H rows, W columns.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...autoencoders.infgen_positions import Window
from ...checkpoints.decoder import PIXELS_A_TOKEN
from ...errors import MediaError, SpecError
from ...input_files import fault
from ...inputs import media
from ...inputs.host_memory import free_bytes

# Bytes of decoded pictures that a rank keeps at hand, and of the memory that is free.
MOST_KEPT, PART_KEPT = 4 * 2**30, 0.2
SUPPORT = 3  # source pixels that Lanczos reads around a place, times the reduction
Size = tuple[int, int]  # rows, columns
Drawn = Callable[[int, int], tuple[Size, Size]]


@dataclass(frozen=True)
class FilePicture:
    """A picture in a file: what it was when it was found, and which part of it counts.

    Pixels are `height` x `width` in the middle of it; `decoded` are rows and columns of its
    decode, as large as the model draws such a picture.
    """

    path: str
    num_bytes: int
    height: int
    width: int
    decoded: Size

    @property
    def key(self) -> str:
        """A name by all that decides its latents, the model apart."""
        return hashlib.sha256(repr(sorted(asdict(self).items())).encode()).hexdigest()[:24]

    @property
    def most_scale(self) -> float:
        """The largest enlargement of its decode that is no larger than the picture."""
        sides = zip((self.height, self.width), self.decoded, strict=True)
        return min(whole_tokens(side) / low for side, low in sides)


@dataclass(frozen=True)
class Found:
    """Pictures that can be learned from, and why others of the folder cannot, a clause each."""

    pictures: tuple[FilePicture, ...]
    left_out: tuple[str, ...]


def whole_tokens(pixels: int) -> int:
    """The most pixels of a side that are whole tokens of the decoder."""
    return pixels // PIXELS_A_TOKEN * PIXELS_A_TOKEN


def find(folder: str, most: int, crop: int, drawn: Drawn) -> Found:
    """At most `most` pictures in a folder and those below it, evenly of its sorted names.

    `drawn(height, width)` gives the part of such a picture that counts, and the size of its
    decode: two sizes. Raises `SpecError` where there is no folder, or nothing to learn from.
    """
    names = file_names(folder)
    pictures: list[FilePicture] = []
    left_out: list[str] = []
    chosen = np.linspace(0, len(names) - 1, min(most, len(names))).round().astype(int)
    for name in (names[index] for index in chosen):
        try:
            size = media.peek(name)
        except MediaError:
            continue  # no picture: a text beside them, a damaged file
        if size.frames != 1 or size.fps is not None:
            continue
        part, decoded = drawn(size.height, size.width)
        height, width = part
        picture = FilePicture(name, os.path.getsize(name), height, width, decoded)
        why = _unfit(picture, size, crop)
        if why is None:
            pictures.append(picture)
        else:
            left_out.append(why)
    if not pictures:
        raise SpecError(_nothing(folder, names, left_out))
    return Found(tuple(pictures), tuple(left_out))


def file_names(folder: str) -> list[str]:
    """Paths of all files of a folder and those below it, sorted; hidden ones are left out.

    Raises `SpecError` where there is no folder.
    """
    if not os.path.isdir(folder):
        why = fault(folder)
        told = f"{folder} is a file" if why is None else why
        raise SpecError(f"data {folder!r}: {told}; a folder of pictures works, or scenes")
    names = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        names += [os.path.join(parent, each) for each in files if not each.startswith(".")]
    return sorted(names)


def _unfit(picture: FilePicture, size: media.Size, crop: int) -> str | None:
    """Why a picture is nothing to learn from; None for one that is."""
    told = f"{picture.path} of {size.width}x{size.height}"
    rows, columns = picture.decoded
    if picture.most_scale <= 1:
        return (
            f"{told} is not larger than the {columns}x{rows} that the model draws of it, so that "
            "there is nothing to learn; larger pictures work"
        )
    if min(whole_tokens(picture.height), whole_tokens(picture.width)) < crop:
        return f"{told} is smaller than a crop of {crop}; a smaller --crop or larger pictures work"
    return None


def _nothing(folder: str, names: Sequence[str], left_out: Sequence[str]) -> str:
    if left_out:
        more = f"; so it is with all {len(left_out)} pictures" if len(left_out) > 1 else ""
        return f"data {folder!r}: {left_out[0]}{more}"
    there = f"{len(names)} files" if names else "nothing"
    return (
        f"data {folder!r} holds {there}, and no picture that Frieze reads; "
        "PNG, JPEG, WebP, AVIF, HEIF and TIFF work"
    )


class FolderPictures:
    """Crops of pictures in files, reduced to the size of a canvas by Lanczos' filter.

    Decoded pictures are kept at hand with 8 bits a sample, as many as memory allows.
    """

    def __init__(self, pictures: Sequence[FilePicture]) -> None:
        self.pictures = pictures
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._most = min(MOST_KEPT, int(PART_KEPT * free_bytes()))

    def decoded_size(self, number: int) -> Size:
        """Rows and columns of a picture's decode."""
        return self.pictures[number].decoded

    def most_scale(self, number: int) -> float:
        """The largest enlargement that a crop can be had at."""
        return self.pictures[number].most_scale

    def crop(self, number: int, window: Window) -> Tensor:
        """A window of a canvas no larger than the picture, [1, 3, h, w] in [-1, 1]."""
        return scaled(self._pixels(number), window)

    def __len__(self) -> int:
        return len(self.pictures)

    def _pixels(self, number: int) -> np.ndarray:
        if number not in self._kept:
            self._kept[number] = read(self.pictures[number])
            while len(self._kept) > 1 and sum(p.nbytes for p in self._kept.values()) > self._most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]


def read(picture: FilePicture) -> np.ndarray:
    """The part of a picture that counts, [H, W, 3] uint8; raises `MediaError`."""
    if os.path.getsize(picture.path) != picture.num_bytes:
        raise MediaError(f"{picture.path} has changed since it was found; start it again")
    (frame_HWC,) = media.frames(picture.path, 1)
    top = (frame_HWC.shape[0] - picture.height) // 2
    left = (frame_HWC.shape[1] - picture.width) // 2
    part_HWC = frame_HWC[top : top + picture.height, left : left + picture.width]
    levels_HWC = np.empty(part_HWC.shape, np.uint8)
    for row, line_WC in enumerate(part_HWC):
        levels_HWC[row] = np.rint(line_WC * 255)
    return levels_HWC


def scaled(pixels_HWC: np.ndarray, window: Window) -> Tensor:
    """A window of a picture at the size of a canvas: [1, 3, h, w] in [-1, 1].

    Only what the window needs is looked at, and is the same as of the whole.
    """
    spans = [
        _span(part, most, here)
        for part, most, here in zip(
            (window.rows, window.columns), window.size, pixels_HWC.shape[:2], strict=True
        )
    ]
    (rows, top, bottom), (columns, left, right) = spans
    part_HWC = np.ascontiguousarray(pixels_HWC[rows, columns])
    if part_HWC.shape[:2] != window.shape or (top, left) != (0, 0):
        image = Image.fromarray(part_HWC).resize(
            window.shape[::-1], Image.Resampling.LANCZOS, box=(left, top, right, bottom)
        )
        part_HWC = np.asarray(image)
    return torch.from_numpy(part_HWC.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1


def _span(places: range, most: int, here: int) -> tuple[slice, float, float]:
    """Source pixels that places of an axis need, and where in them these begin and end."""
    ratio = here / most
    start, stop = places.start * ratio, places.stop * ratio
    around = 0 if here == most else math.ceil(SUPPORT * max(1.0, ratio)) + 1
    first = max(0, math.floor(start) - around)
    last = min(here, math.ceil(stop) + around)
    return slice(first, last), start - first, stop - first


def identities(pictures: Sequence[FilePicture], folder: str) -> Iterator[tuple[str, int]]:
    """Names in the folder and bytes of files, by which a training knows its pictures again."""
    for picture in pictures:
        yield Path(picture.path).relative_to(folder).as_posix(), picture.num_bytes
