"""Output formats: one file per format, each defines `check` and `export`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..store.layout import RowSink


def sinks(picture_path: str | None) -> list[RowSink]:
    """Where blocks go besides the store: the TIFF that is written live at a path, if there is."""
    if picture_path is None:
        return []
    from . import tiff

    return [functools.partial(tiff.write_tiles, picture_path)]
