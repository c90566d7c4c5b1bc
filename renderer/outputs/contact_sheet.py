"""A contact sheet: the pictures of a batch side by side, small, with their names under them.

Shape suffixes: H rows, W columns, C channels.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from ..errors import StoreError
from ..files.location import Location
from ..files.operations import replace
from ..store.store import Store
from ..store.thumbnail import thumbnail

SIDE, MARGIN, CAPTION = 192, 12, 20  # pixels
MOST_COLUMNS, MOST_PICTURES = 8, 400
PAPER, INK = (246, 244, 240), (40, 40, 40)
FONT_SIZE = 13


def contact_sheet(pictures: Sequence[tuple[str, Location]], out: Location) -> Location:
    """Write a PNG of (name, store) pairs, the first `MOST_PICTURES`; returns its path.

    Each comes from the coarsest level of its store's pyramid that is large enough, a clip from
    its middle frame; a store that cannot be read leaves an empty frame.
    """
    shown = pictures[:MOST_PICTURES]
    columns = min(MOST_COLUMNS, max(1, math.ceil(math.sqrt(len(shown)))))
    rows = max(1, math.ceil(len(shown) / columns))
    step = (SIDE + MARGIN, SIDE + MARGIN + CAPTION)
    sheet = Image.new("RGB", (columns * step[0] + MARGIN, rows * step[1] + MARGIN), PAPER)
    font = ImageFont.load_default(FONT_SIZE)
    for index, (name, store) in enumerate(shown):
        left = MARGIN + index % columns * step[0]
        top = MARGIN + index // columns * step[1]
        _place(sheet, _thumbnail(store), left, top)
        caption = _fitted(name, font)
        ImageDraw.Draw(sheet).text((left, top + SIDE + 2), caption, fill=INK, font=font)
    file = io.BytesIO()
    sheet.save(file, format="PNG")
    replace(out, file.getvalue())
    return out


def _thumbnail(path: Location) -> Image.Image | None:
    """A store's picture; None where it cannot be read."""
    try:
        return thumbnail(Store.open(path), SIDE)
    except StoreError:
        return None


def _place(sheet: Image.Image, picture: Image.Image | None, left: int, top: int) -> None:
    if picture is None:
        ImageDraw.Draw(sheet).rectangle((left, top, left + SIDE - 1, top + SIDE - 1), outline=INK)
        return
    sheet.paste(picture, (left + (SIDE - picture.width) // 2, top + SIDE - picture.height))


def _fitted(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of a name as fits under its picture."""
    if font.getlength(name) <= SIDE:
        return name
    while name and font.getlength(name + "...") > SIDE:
        name = name[:-1]
    return name + "..."
