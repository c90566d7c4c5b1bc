"""What to draw: the public face of Frieze.

    from frieze.renderer import RenderSpec, plan, render
    result = render(RenderSpec(prompt="a red sun over blue mountains at dusk", out="poster.zarr"))

A name is imported when it is asked for: this package alone imports nothing, and no name of it
imports torch, ray, diffusers or zarr before work begins.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batch import batch
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
    from .ledger import ItemEvent, ItemResult
    from .listener import RenderHandle, RenderResult
    from .plan import CanvasPlan, plan
    from .render import render, resume
    from .spec import RenderSpec, StageSpec

__all__ = [
    "CanvasPlan",
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
    "CanvasPlan": "plan",
    "Event": "events",
    "ItemEvent": "ledger",
    "ItemResult": "ledger",
    "RenderHandle": "listener",
    "RenderResult": "listener",
    "RenderSpec": "spec",
    "StageSpec": "spec",
    "batch": "batch",
    "plan": "plan",
    "render": "render",
    "resume": "render",
}


def __getattr__(name: str) -> Any:
    """A public name, from its module (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES.get(name, 'errors')}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """A package of which a verb and a module bear one name: `plan` is the verb."""

    def __setattr__(self, name: str, value: object) -> None:
        """The import of a module sets the package's attribute; a verb's stays the verb."""
        is_module = isinstance(value, ModuleType) and name in __all__
        super().__setattr__(name, getattr(value, name) if is_module else value)


sys.modules[__name__].__class__ = _Package
