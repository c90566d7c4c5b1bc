"""Where a picture stands on a larger canvas: X,Y in pixels from the left and the top."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from ..errors import shown


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
