"""A tile of a picture as a file of its own, JPEG or PNG.

Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import ExportError, shown
from . import picture_rows

FORMATS = ("jpg", "png")
QUALITY = 90  # of JPEG, where nothing is asked for


@dataclass(frozen=True)
class TileEncoder:
    """What tiles are written as: `format` is their suffix, `quality` JPEG's (1 to 100).

    `icc` is the profile that each tile has, None: none, which readers take for sRGB. Raises
    `ExportError` for another format or quality.
    """

    format: Literal["jpg", "png"] = "jpg"
    quality: int = QUALITY
    icc: bytes | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ExportError(f"no tiles of {shown(self.format)}; {' and '.join(FORMATS)} work")
        if not isinstance(self.quality, int) or not 1 <= self.quality <= 100:
            raise ExportError(f"quality {shown(self.quality)} does not work; from 1 to 100 does")

    @property
    def media_type(self) -> str:
        """What a server calls such a tile."""
        return "image/jpeg" if self.format == "jpg" else "image/png"

    def encode(self, pixels_HWC: np.ndarray) -> bytes:
        """A tile's file; of 16 bits a channel the nearest 8 are kept. Safe in threads."""
        from PIL import Image

        image = Image.fromarray(np.ascontiguousarray(picture_rows.of_bits(pixels_HWC, 8)))
        file = io.BytesIO()
        if self.format == "jpg":
            # No colour is halved: thin lines of colour are what a print is looked at for.
            options = {"quality": self.quality, "subsampling": 0}
            image.save(file, "JPEG", icc_profile=self.icc, **options)
        else:
            image.save(file, "PNG", icc_profile=self.icc, compress_level=6)
        return file.getvalue()
