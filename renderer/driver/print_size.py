"""A print's size in pixels that its model draws, and the dpi at which they cover it."""

from __future__ import annotations

from ..checkpoints.checkpoint import describe
from ..checkpoints.decoder import PIXELS_A_TOKEN
from ..planning.plan import load_method
from ..planning.stage_plan import stage_grid
from ..spec.place import print_dpi, print_inches
from ..spec.render_spec import RenderSpec


def of_print(spec: RenderSpec) -> RenderSpec:
    """The spec with sides in multiples of what its model and method need, if it has a print.

    They are the nearest to those asked for; the dpi is then such that one side is exactly the
    print's and the other no smaller. What was made so stays as it is. Raises `SpecError`, and what
    a plan raises of model and method.
    """
    if spec.print is None:
        return spec
    unit = _unit(spec)
    near = _nearest(spec, unit)
    # Where a method's convolutions go farther its unit is larger, and follows from the size.
    return near if _unit(near) == unit else _nearest(spec, _unit(near))


def _nearest(spec: RenderSpec, unit: int) -> RenderSpec:
    assert spec.print is not None
    height, width = (max(1, round(side / unit)) * unit for side in (spec.height, spec.width))
    dpi = print_dpi(print_inches(spec.print, spec.bleed), width, height)
    return spec.model_copy(update={"height": height, "width": width, "dpi": dpi})


def _unit(spec: RenderSpec) -> int:
    """Pixels of which both sides are multiples."""
    if spec.decoder is not None:
        return PIXELS_A_TOKEN
    facts = describe(spec.model, spec.revision, spec.variant)
    method = load_method(spec, facts)
    return stage_grid(len(method.stages) - 1, method, spec, facts).unit
