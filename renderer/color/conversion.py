"""Pixels from one profile to another, each by itself: bytes do not depend on how many go at once.

Little CMS converts floats. Whole numbers would be quicker, but it puts a coarse table between two
profiles then: 16-bit sRGB to Adobe RGB is off by up to 1200 of 65535 so, CMYK by 2.7 % of an ink.
Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ExportError
from ..spec.render_spec import Intent
from .profiles import WORKS, Profile

# ICC.1:2022, section 7.2.15.
INTENTS: dict[Intent, int] = {"perceptual": 0, "relative": 1, "saturation": 2, "absolute": 3}
PIECE = 2**17  # pixels that a thread converts at once
SCALE = {"RGB": 1.0, "GRAY": 1.0, "CMYK": 100.0}  # of Little CMS's floats


@dataclass(frozen=True)
class Conversion:
    """From the profile of a store's pixels to that of a file.

    Black becomes black (black point compensation) but for the absolute intent, which promises
    measured colours, and for saturation where a profile has no tables of it.
    """

    source: Profile
    target: Profile
    intent: Intent = "relative"

    @property
    def icc(self) -> bytes:
        """The profile to embed."""
        return self.target.data

    @property
    def space(self) -> str:
        """RGB or CMYK."""
        return self.target.space

    @property
    def channels(self) -> int:
        """Samples of a pixel, without alpha."""
        return self.target.channels

    @property
    def is_plain(self) -> bool:
        """Whether pixels stay as they are."""
        return self.source.data == self.target.data

    def check(self, where: object, *, has_alpha: bool) -> None:
        """Raise `ExportError` unless a file at `where` can be given such colours."""
        import imagecodecs

        if self.is_plain:
            return
        if self.space == "GRAY":
            raise ExportError(f"{self.target.name} is an ICC profile of grey; {WORKS}")
        if self.target.is_input:
            raise ExportError(
                f"{self.target.name} is an ICC profile of a scanner or camera, which pictures come "
                "from and do not go to; use a printer's, a display's or a colour space's"
            )
        if has_alpha and self.space == "CMYK":
            raise ExportError(
                f"{where} would be CMYK with alpha, which no print shop takes; use an RGB profile, "
                "or a picture without alpha"
            )
        try:
            self.floats(np.zeros((1, 1, self.source.channels), np.float32))
        except (imagecodecs.CmsError, ValueError):
            raise ExportError(
                f"{self.target.name} cannot be converted to from {self.source.name}: it is damaged "
                "or has no way back; use a printer's or a display's profile"
            ) from None

    def floats(self, colour_HWC: np.ndarray) -> np.ndarray:
        """Colours [H, W, C], float32 in [0, 1], as the target's, cut to [0, 1]."""
        import imagecodecs

        flags = imagecodecs.CMS.FLAGS.BLACKPOINTCOMPENSATION if self.intent != "absolute" else 0
        into, out_of = self.target.space, self.source.space
        given: Any = np.ascontiguousarray(colour_HWC, np.float32) * np.float32(SCALE[out_of])
        found: np.ndarray = imagecodecs.cms_transform(
            given[..., 0] if out_of == "GRAY" else given,
            self.source.data,
            self.target.data,
            colorspace=out_of.lower(),
            outcolorspace=into.lower(),
            outdtype="float32",
            intent=INTENTS[self.intent],
            flags=int(flags),
        )
        found /= np.float32(SCALE[into])
        return np.clip(found, 0, 1, out=found)

    def rows(self, pixels_HWC: np.ndarray, pool: ThreadPoolExecutor | None = None) -> np.ndarray:
        """Rows of whole numbers, alpha after the colours if any, in the same depth."""
        if self.is_plain:
            return pixels_HWC
        height, width, samples = pixels_HWC.shape
        extra = samples - self.source.channels
        out_HWC = np.empty((height, width, self.channels + extra), pixels_HWC.dtype)
        step = max(1, PIECE // width)

        def convert(top: int) -> None:
            piece_HWC, into_HWC = pixels_HWC[top : top + step], out_HWC[top : top + step]
            into_HWC[..., : self.channels] = self._whole(piece_HWC[..., : self.source.channels])
            into_HWC[..., self.channels :] = piece_HWC[..., self.source.channels :]

        list((map if pool is None else pool.map)(convert, range(0, height, step)))
        return out_HWC

    def strips(
        self, strips: Iterable[tuple[int, np.ndarray]], workers: int | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Strips of (first row, rows [H, W, C]) as `rows`, by so many threads (None: all cores)."""
        if self.is_plain:
            yield from strips
            return
        with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
            for first, rows_HWC in strips:
                yield first, self.rows(rows_HWC, pool)

    def _whole(self, colour_HWC: np.ndarray) -> np.ndarray:
        top = np.float32(np.iinfo(colour_HWC.dtype).max)
        found_HWC = self.floats(colour_HWC.astype(np.float32) / top)
        found_HWC *= top
        return np.rint(found_HWC, out=found_HWC).astype(colour_HWC.dtype)
