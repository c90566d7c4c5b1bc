"""What to draw: the public face of Frieze.

    from frieze.renderer import RenderSpec, plan, render
    result = render(RenderSpec(prompt="a red sun over blue mountains at dusk", out="poster.zarr"))

A name is imported when it is asked for: this package alone imports nothing, and no name of it
imports torch, ray, diffusers or zarr before work begins.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import batch, render, resume
    from .batches.item_states import ItemEvent, ItemResult
    from .driver.caller import RenderHandle, RenderResult
    from .errors import (
        ExportError,
        FingerprintError,
        FriezeError,
        ModelError,
        PlanError,
        RenderCancelledError,
        RenderFailedError,
        SpecError,
        StoreError,
    )
    from .events import Event
    from .planning.canvas_plan import CanvasPlan
    from .planning.plan import plan
    from .spec.edits import Edit
    from .spec.render_spec import RenderSpec
    from .spec.stage_spec import StageSpec

__all__ = [
    "CanvasPlan",
    "Edit",
    "Event",
    "ExportError",
    "FingerprintError",
    "FriezeError",
    "ItemEvent",
    "ItemResult",
    "ModelError",
    "PlanError",
    "RenderCancelledError",
    "RenderFailedError",
    "RenderHandle",
    "RenderResult",
    "RenderSpec",
    "SpecError",
    "StageSpec",
    "StoreError",
    "batch",
    "plan",
    "render",
    "resume",
]

# Modules by the names that they give; those whose names end in Error are all in one.
_MODULES = {
    "CanvasPlan": "planning.canvas_plan",
    "Edit": "spec.edits",
    "Event": "events",
    "ItemEvent": "batches.item_states",
    "ItemResult": "batches.item_states",
    "RenderHandle": "driver.caller",
    "RenderResult": "driver.caller",
    "RenderSpec": "spec.render_spec",
    "StageSpec": "spec.stage_spec",
    "batch": "api",
    "plan": "planning.plan",
    "render": "api",
    "resume": "api",
}


def __getattr__(name: str) -> Any:
    """A public name, from its module (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES.get(name, 'errors')}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
