"""What ControlNets of all families have in common: how they are loaded, and told apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ..checkpoints.controlnet import folder_of

if TYPE_CHECKING:
    import torch

    from frieze.cluster.bands import Marks

    from ..checkpoints.facts import ModelFacts
    from ..spec.render_spec import RenderSpec

T = TypeVar("T")


def loaded(
    facts: ModelFacts,
    spec: RenderSpec,
    kind: type,
    device: torch.device,
    of: Callable[[Any, str], T],
) -> tuple[T, ...]:
    """`of` each network that a spec names, in order, and of a name that its layers have.

    They are of a class of diffusers, on a device; each is loaded once. Raises `ModelError`.
    """
    from ..models import loading

    made: dict[str, T] = {}
    for index, name in enumerate(dict.fromkeys(spec.controlnet)):
        network = loading.component(kind, facts, str(folder_of(name)), spec).to(device).eval()
        made[name] = of(network, f"controlnet_{index}" if index else "controlnet")
    return tuple(made[name] for name in spec.controlnet)


def of_each(values: Sequence[T], number: int) -> Sequence[T]:
    """As many values as there are pictures to follow: one is for all of them."""
    return tuple(values) * number if len(values) == 1 else values


def marks_of_each(controls: Sequence[Any], *context: Any) -> tuple[tuple[Marks, ...], ...]:
    """The layers of each ControlNet that attend; of one that is named again the same."""
    made = {each: tuple(each.marks(*context)) for each in dict.fromkeys(controls)}
    return tuple(made[each] for each in controls)
