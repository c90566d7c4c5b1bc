"""Watermarks: one file per mark that is put into pixels as they are written.

A watermark defines `mark(pixels_HWC, row, *, frame, size, options)`, which gives as many pixels of
the same kind: whole rows of a picture of `size` (rows, columns), or of a clip's `frame` (None of a
picture), the first of them the picture's `row`. What it gives for a pixel depends on that row's
pixels and on where they lie, and on nothing else: ranks write what they hold in pieces of any
height and in any order, some of them again after a failure, and the bytes must not tell. What it
can be told is `class Options`, a pydantic model, if there is any.
Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel

from .. import plugins
from ..errors import SpecError, reason
from ..spec.options import checked_options

if TYPE_CHECKING:
    from ..spec.render_spec import RenderSpec

# (pixels [H, W, C], first row, frame) -> pixels [H, W, C].
Marked = Callable[[np.ndarray, int, int | None], np.ndarray]


class NoOptions(BaseModel):
    """Of a watermark that takes none."""


def check(spec: RenderSpec) -> None:
    """Raise `SpecError` unless the watermark that is asked for, if any, is there and takes that."""
    if spec.watermark is None:
        if spec.watermark_options:
            name = next(iter(spec.watermark_options))
            raise SpecError(f"watermark option {name!r}: there is no watermark; add --watermark")
        return
    _options(spec, spec.watermark)


def of_spec(spec: RenderSpec) -> Marked | None:
    """What is done to rows of pixels before they are written; None where no mark is asked for.

    Raises `SpecError`, also where a plugin fails or gives back other pixels than it must.
    """
    if (name := spec.watermark) is None:
        return None
    options, mark = _options(spec, name), plugins.load("watermarks", name).mark
    size = spec.height, spec.width

    def marked(pixels_HWC: np.ndarray, row: int, frame: int | None) -> np.ndarray:
        try:
            found = mark(pixels_HWC, row, frame=frame, size=size, options=options)
        # A package's own faults; its exit would end a thread alone.
        except (Exception, SystemExit) as error:
            raise SpecError(
                f"watermark {name} failed at row {row}: {type(error).__name__}: {reason(error)}"
            ) from error
        if isinstance(found, np.ndarray):
            if (found.shape, found.dtype) == (pixels_HWC.shape, pixels_HWC.dtype):
                return found
            gave = f"{found.dtype} {found.shape}"
        else:
            gave = f"a {type(found).__name__}"
        raise SpecError(
            f"watermark {name} gave {gave} for {pixels_HWC.dtype} {pixels_HWC.shape}; it must give "
            "as many of the same kind"
        )

    return marked


def _options(spec: RenderSpec, name: str) -> Any:
    taken = getattr(plugins.load("watermarks", name), "Options", NoOptions)
    return checked_options(taken, spec.watermark_options, "watermark", name)
