"""What ControlNets of all families have in common: weights, a strength, and how they are loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..checkpoints.controlnet import folder_of

if TYPE_CHECKING:
    import torch

    from ..checkpoints.facts import ModelFacts
    from ..spec.render_spec import RenderSpec


def loaded(facts: ModelFacts, spec: RenderSpec, kind: type, device: torch.device) -> Any:
    """The network that a spec names, of a class of diffusers, on a device; raises `ModelError`."""
    from ..models import loading

    assert spec.controlnet is not None
    return loading.component(kind, facts, str(folder_of(spec.controlnet)), spec).to(device).eval()
