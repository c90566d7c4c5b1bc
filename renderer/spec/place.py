"""Sizes and places in pixels, in words: WIDTHxHEIGHT, and X,Y from the left and the top."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from ..errors import SpecError, shown


def left_top(place: str) -> tuple[int, int]:
    """(left, top) of X,Y; ValueError that says what would work."""
    found = re.fullmatch(r"\s*([0-9]{1,7})\s*,\s*([0-9]{1,7})\s*", place)
    if not found:
        raise ValueError(f"{shown(place)} is not X,Y in pixels from the left and the top, as 512,0")
    return int(found[1]), int(found[2])


def _checked(place: str) -> str:
    left, top = left_top(place)
    return f"{left},{top}"


Place = Annotated[str, AfterValidator(_checked)]


def height_width(size: str, called: str = "size") -> dict[str, int]:
    """{"height": ..., "width": ...} of WIDTHxHEIGHT in pixels; raises `SpecError`."""
    found = re.fullmatch(r"([0-9]{1,9})[xX\u00d7]([0-9]{1,9})", size.strip())
    if not found:
        raise SpecError(
            f"{called} {shown(size)} is not WIDTHxHEIGHT in pixels, for example 1024x768"
        )
    return {"width": int(found[1]), "height": int(found[2])}
