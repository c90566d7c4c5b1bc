"""Bytes that a training of a LoRA needs on each device, counted on meta tensors before any work.

A rank holds the whole model and one example at a time, so that neither workers nor the batch
change it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from frieze.kernels.live_bytes import LiveBytes
from frieze.kernels.meta_attention import tracing
from frieze.kernels.operator_workspace import workspace

from ...checkpoints.checkpoint import load_family
from ...errors import PlanError
from ...models import loading
from ...models.device import device_type
from ...models.family import Guidance
from ...models.meta_models import skeletons
from ...planning import memory_check
from ...planning.canvas_plan import CanvasPlan
from ...planning.estimate import USABLE
from ...planning.memory_trace import text_bytes
from ...planning.meta_render import META
from ...spec.render_spec import RenderSpec
from ...spec.units import GIB
from . import lora_adapter
from .lora_recipe import LoraRecipe
from .method_denoiser import MethodDenoiser

# Of each factor: itself, its gradient, AdamW's two moments, and an average; in float32.
COPIES, FLOAT32 = 4, 4
# A training that needs so many times less than there is, by a rough guess, is not counted.
MARGIN = 4
REMEDIES: dict[str, dict[str, Any]] = {
    "--gradient-checkpointing": {"checkpointing": True},
    "--dtype bfloat16": {"dtype": "bfloat16"},
    "--dtype bfloat16 --gradient-checkpointing": {"dtype": "bfloat16", "checkpointing": True},
}


@dataclass(frozen=True)
class LoraMemory:
    """Peak bytes on each device: `weights` and `factors` stay, a step's `activations` or an
    example's `encoding` come to them; text encoders are gone before.
    """

    weights: int
    factors: int
    activations: int
    encoding: int
    text: int

    @property
    def bytes_per_device(self) -> int:
        """The most at any moment."""
        return max(self.weights + max(self.factors + self.activations, self.encoding), self.text)

    def __str__(self) -> str:
        return (
            f"{self.bytes_per_device / GIB:.2f} GiB on each device (weights "
            f"{self.weights / GIB:.2f}, factors and their optimiser {self.factors / GIB:.2f}, a "
            f"step {self.activations / GIB:.2f}, encoding {self.encoding / GIB:.2f})"
        )


def check(
    recipe: LoraRecipe,
    workers: RenderSpec,
    drawn: CanvasPlan,
    again: Callable[[LoraRecipe], CanvasPlan],
) -> None:
    """Raise `PlanError` for a training that does not fit; `again` plans a recipe that might."""
    memory = memory_check.available(workers)
    sharing = workers.workers if workers.local else 1
    if memory is None or MARGIN * sharing * _roughly(drawn) < memory:
        return
    found = needed(recipe, drawn)
    if sharing * found.bytes_per_device <= USABLE * memory:
        return
    raise PlanError(
        f"a training at {recipe.width}x{recipe.height} does not fit: it needs {found}, which has "
        f"{memory / GIB:.1f}; {_instead(recipe, int(USABLE * memory / sharing), again)}"
    )


def _instead(recipe: LoraRecipe, memory: int, again: Callable[[LoraRecipe], CanvasPlan]) -> str:
    """The first options with which it would fit into so many bytes."""
    for words, changes in REMEDIES.items():
        other = recipe.model_copy(update=changes)
        if other != recipe and needed(other, again(other)).bytes_per_device <= memory:
            return f"{words} would do"
    return "use a smaller --size, or larger devices"


def needed(recipe: LoraRecipe, drawn: CanvasPlan) -> LoraMemory:
    """What a rank of a training holds; raises `ModelError` for a config that fails."""
    facts, spec = drawn.facts, drawn.spec
    loading.libraries(facts)
    with skeletons() as parts:
        model = load_family(facts.family).load(facts, spec, META)
    weights = sum(part.weight_bytes for part in parts)
    networks = lora_adapter.denoisers(model)
    for network in networks:
        with torch.device(META):
            lora_adapter.add(
                network, rank=recipe.rank, alpha=1.0, targets=recipe.targets, seed=recipe.seed
            )
        _on_meta(network)
    factors = sum(f.numel() for network in networks for f in lora_adapter.factors(network))
    copies = COPIES + (recipe.ema is not None)
    trace = LoraTrace(drawn, model)
    step = trace.step()
    if recipe.checkpointing:
        for network in networks:
            network.enable_gradient_checkpointing()  # type: ignore[operator]
        # What is kept between blocks, and one block that runs again.
        step = min(step, trace.forward() + step // max(1, facts.num_blocks))
    return LoraMemory(
        weights, factors * copies * FLOAT32, step, trace.encoding(), text_bytes(facts, spec)
    )


def _on_meta(network: nn.Module) -> None:
    """What peft made is there without values too."""
    for layer in network.modules():
        for name, weight in list(layer.named_parameters(recurse=False)):
            if not weight.is_meta:
                there = nn.Parameter(weight.to(META), requires_grad=weight.requires_grad)
                setattr(layer, name, there)


class LoraTrace:
    """A model without weights that is trained, and what it holds meanwhile, in bytes."""

    def __init__(self, drawn: CanvasPlan, model: Any) -> None:
        self.drawn, self.model = drawn, model
        self.denoiser = MethodDenoiser(drawn, model)
        self.level = self.denoiser.stage.levels[0]

    def step(self) -> int:
        """The peak of a forward and a backward pass."""
        embedded = 1.0 if self.drawn.facts.guidance.embedded else 0.0
        with self._watched() as live:
            x0, noise = self._latents(), self._latents()
            self.denoiser.gradients(
                x0, noise, self.level, self._text(), weight=1.0, embedded=embedded
            )
        return live.peak.num_bytes

    def forward(self) -> int:
        """The peak of a forward pass that a backward pass could follow."""
        guidance = Guidance(embedded=1.0 if self.drawn.facts.guidance.embedded else 0.0)
        with self._watched() as live, self.denoiser.at(self.level) as place, torch.enable_grad():
            told = (self._latents(), self.level, self._text(), place, guidance)
            found = self.model.denoised(*told)
            del found
        return live.peak.num_bytes

    @torch.no_grad()
    def encoding(self) -> int:
        """The peak of encoding an example."""
        canvas, latent = self.denoiser.stage.canvas, self.drawn.facts.latent
        frames = (canvas.frames - 1) * latent.temporal + 1
        sides = (canvas.height * latent.downscale, canvas.width * latent.downscale)
        with self._watched() as live:
            self.model.encoded(torch.empty((1, 3, frames, *sides), device=META))
        return live.peak.num_bytes

    @contextmanager
    def _watched(self) -> Iterator[LiveBytes]:
        with LiveBytes(workspace) as live, tracing(device_type(self.drawn.spec.device)):
            yield live

    def _latents(self) -> Tensor:
        return torch.empty(self.denoiser.shape, device=META)

    def _text(self) -> dict[str, Tensor]:
        facts, spec = self.drawn.facts, self.drawn.spec
        shapes = load_family(facts.family).text_shapes(facts, spec)
        dtype = getattr(torch, spec.dtype)
        return {
            name: torch.empty(shape, dtype=dtype, device=META) for name, shape in shapes.items()
        }


def _roughly(drawn: CanvasPlan) -> int:
    """A guess, no less than a `MARGIN`th: each block may keep what a step holds of one."""
    weights = drawn.weight_bytes
    return 2 * weights + max(1, drawn.facts.num_blocks) * (memory_check.roughly(drawn) - weights)
