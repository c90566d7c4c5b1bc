"""A picture as images of a PDF page: one that loses nothing, or strips of JPEG.

Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from . import picture_rows, png_rows
from .pdf_file import PdfFile

STRIP_ROWS = 512
OVERLAP = 16  # rows of a strip that the next one covers, so that no seam shows


class PageImage(NamedTuple):
    """An image's object, and which rows of the picture it has."""

    number: int
    top: int
    rows: int


@dataclass(frozen=True)
class PageImages:
    """How a picture of so many pixels, channels and bits of each becomes images.

    `quality` is JPEG's of 100, `level` deflate's of 9, `workers` are compressing threads.
    """

    height: int
    width: int
    channels: int
    bits: int
    compression: Literal["deflate", "jpeg"]
    quality: int
    level: int
    workers: int

    def write(self, pdf: PdfFile, strips: Iterator[np.ndarray], space: str) -> list[PageImage]:
        """Write strips [H, W, C] as they come, from the top; `space` are their colours."""
        if self.compression == "deflate":
            parts = png_rows.deflated(png_rows.filtered(strips), self.level, self.workers)
            number = pdf.add_stream(self._about(self.height, space), parts)
            return [PageImage(number, 0, self.height)]
        found, top = list[PageImage](), 0
        for rows_HWC, own in _overlapping(strips):
            number = pdf.add_stream(self._about(len(rows_HWC), space), [self._jpeg(rows_HWC)])
            found.append(PageImage(number, top, len(rows_HWC)))
            top += own
        return found

    def _about(self, rows: int, space: str) -> dict[str, str]:
        """Dictionary of an image of so many rows (ISO 32000-1, 8.9.5, 7.4.4.4 and 7.4.8)."""
        about = {
            "Type": "/XObject",
            "Subtype": "/Image",
            "Width": str(self.width),
            "Height": str(rows),
            "ColorSpace": space,
        }
        if self.compression == "jpeg":
            about |= {"BitsPerComponent": "8", "Filter": "/DCTDecode"}
            # Pillow's JPEG of inks is inverted, as Adobe's are.
            return about | ({"Decode": "[1 0 1 0 1 0 1 0]"} if self.channels == 4 else {})
        shape = f"/Colors {self.channels} /BitsPerComponent {self.bits} /Columns {self.width}"
        return about | {
            "BitsPerComponent": str(self.bits),
            "Filter": "/FlateDecode",
            "DecodeParms": f"<< /Predictor 15 {shape} >>",
        }

    def _jpeg(self, rows_HWC: np.ndarray) -> bytes:
        from PIL import Image

        mode = "CMYK" if self.channels == 4 else "RGB"
        pixels_HWC = np.ascontiguousarray(picture_rows.of_bits(rows_HWC, 8))
        file, size = io.BytesIO(), (pixels_HWC.shape[1], pixels_HWC.shape[0])
        image = Image.frombuffer(mode, size, pixels_HWC.tobytes(), "raw", mode, 0, 1)
        image.save(file, "JPEG", quality=self.quality, subsampling=0)
        return file.getvalue()


def _overlapping(strips: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, int]]:
    """Strips with the first rows of the next one, and how many rows are their own."""
    before: np.ndarray | None = None
    for rows_HWC in strips:
        if before is not None:
            yield np.concatenate([before, rows_HWC[:OVERLAP]]), len(before)
        before = rows_HWC
    if before is not None:
        yield before, len(before)
