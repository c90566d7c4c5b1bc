"""A print's size in pixels that its model draws, and the dpi at which they cover it."""

from __future__ import annotations

import math

from ..checkpoints.checkpoint import describe
from ..checkpoints.decoder import PIXELS_A_TOKEN
from ..errors import SpecError
from ..planning.plan import load_method
from ..planning.stage_plan import stage_grid
from ..spec.place import print_dpi, print_inches
from ..spec.render_spec import RenderSpec

SHAPE = 0.02  # that a picture's shape may be off its print's: what no size in pixels could meet
EXACT = 1e-9


def of_print(spec: RenderSpec) -> RenderSpec:
    """The spec with sides in multiples of what its model and method need, if it has a print.

    They are the nearest to those asked for, and of a picture that is made larger those of its shape
    that are no smaller; the dpi is then such that one side is exactly the print's and the other no
    smaller. What was made so stays as it is. Raises `SpecError`, and what a plan raises of model,
    method and picture.
    """
    if spec.print is None:
        return spec
    if spec.upscale is not None:
        return _of_picture(spec, spec.print, spec.upscale)
    unit = _unit(spec)
    near = _nearest(spec, unit)
    # Where a method's convolutions go farther its unit is larger, and follows from the size.
    return near if _unit(near) == unit else _nearest(spec, _unit(near))


def _nearest(spec: RenderSpec, unit: int) -> RenderSpec:
    height, width = (max(1, round(side / unit)) * unit for side in (spec.height, spec.width))
    return _sized(spec, height, width)


def _of_picture(spec: RenderSpec, size: str, path: str) -> RenderSpec:
    """With sides of the shape of the picture at a path, which is to be the print's."""
    from ..inputs import media

    found, unit = media.peek(path), _unit(spec)
    asked = (spec.height, spec.width)
    is_whole = not any(side % unit for side in asked)
    apart = abs(spec.height * found.width - spec.width * found.height)
    if is_whole and apart < unit * min(found.height, found.width):
        return _sized(spec, *asked)
    inches = print_inches(size, spec.bleed)
    if abs(inches[0] * found.height / (inches[1] * found.width) - 1) > SHAPE:
        with_bleed = f" with bleed {spec.bleed}" if spec.bleed else ""
        raise SpecError(
            f"print {size}{with_bleed} has another shape than upscale {path!r}, which is "
            f"{found.width}x{found.height} pixels, and nothing is cut off; a print of its shape "
            "works, or crop it first"
        )
    return _sized(spec, *_covering(asked, (found.height, found.width), unit))


def _covering(box: tuple[int, int], size: tuple[int, int], unit: int) -> tuple[int, int]:
    """The least rows and columns of a picture's shape that are no fewer, in multiples of `unit`."""
    scale = max(least / side for least, side in zip(box, size, strict=True))
    shorter = math.ceil(min(size) * scale / unit - EXACT) * unit
    longer = round(shorter * max(size) / (min(size) * unit)) * unit
    return (shorter, longer) if size[0] <= size[1] else (longer, shorter)


def _sized(spec: RenderSpec, height: int, width: int) -> RenderSpec:
    assert spec.print is not None
    dpi = print_dpi(print_inches(spec.print, spec.bleed), width, height)
    return spec.model_copy(update={"height": height, "width": width, "dpi": dpi})


def _unit(spec: RenderSpec) -> int:
    """Pixels of which both sides are multiples."""
    if spec.decoder is not None:
        return PIXELS_A_TOKEN
    facts = describe(spec.model, spec.revision, spec.variant)
    method = load_method(spec, facts)
    return stage_grid(len(method.stages) - 1, method, spec, facts).unit
