"""What to draw: the public face of Frieze.

    from frieze.renderer import RenderSpec, plan, render
    result = render(RenderSpec(prompt="a red sun over blue mountains at dusk", out="poster.zarr"))

Importing this package imports neither torch, ray nor diffusers.
"""

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
from .plan import CanvasPlan, plan
from .render import RenderHandle, RenderResult, render, resume
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
