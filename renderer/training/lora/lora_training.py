"""The steps of a LoRA's training: what each draws, its gradients, its state on disk.

What a step draws depends on its number alone, so a training that goes on makes the weights of one
that never stopped, and workers that share a batch make the steps of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor, nn

from frieze.cluster.comm import Comm
from frieze.cluster.comm import worlds as comms

from ...sampling.noise_levels import NoiseLevel
from ...sampling.schedule_table import trained_levels
from ..infgen_training import added_gradients
from ..loop import cosine, read, warmed_up, write
from ..timesteps import Shifted, sample
from . import lora_adapter, lora_start
from .aspect_buckets import Size
from .lora_recipe import LoraRecipe
from .method_denoiser import MethodDenoiser

STATE = "training.pt"
EMA_RISE = 10  # steps; an average follows the first ones sooner, as diffusers' EMAModel
WARM_UP, WARM_PART = 100, 0.1  # steps at most, and of all


class Encoded(Protocol):
    """Examples as the network takes them."""

    def size(self, number: int) -> Size:
        """Its rows and columns, in pixels."""

    def latents(self, number: int) -> Tensor:
        """[1, C, T, H, W]."""

    def text(self, number: int | None) -> dict[str, Tensor]:
        """What its caption is encoded to; None: no caption."""

    def __len__(self) -> int:
        """How many there are."""


@dataclass(frozen=True)
class Draw:
    """An example of a step: which, at which noise level, with which noise, captioned or not."""

    number: int
    level: NoiseLevel
    has_caption: bool
    seed: int


class LoraTraining:
    """Networks with factors, their optimiser, and the number of steps that are done.

    On each rank of `comm` the same, but for its own share of a step's examples, whose gradients
    are added up over the ranks. `progress` in [0, 1] says how far a training is that ends by the
    clock, for one that ends by its steps it is None. `others` are the same model on canvases of
    examples of another size.
    """

    def __init__(
        self,
        recipe: LoraRecipe,
        denoiser: MethodDenoiser,
        others: Mapping[Size, MethodDenoiser] = MappingProxyType({}),
    ) -> None:
        self.recipe, self.denoiser, self.others = recipe, denoiser, others
        self.step_index = 0
        self.comm: Comm = comms.solo()
        self.progress: float | None = None
        self.networks = lora_adapter.denoisers(denoiser.model)
        for index, network in enumerate(self.networks):
            self._add_factors(index, network)
            if recipe.checkpointing:
                network.enable_gradient_checkpointing()  # type: ignore[operator]
        self.factors = [f for network in self.networks for f in lora_adapter.factors(network)]
        self.averages = [f.detach().clone() for f in self.factors] if recipe.ema is not None else []
        self.optimiser = torch.optim.AdamW(self.factors, recipe.rate, betas=(0.9, 0.99))
        self._order: tuple[int, list[int]] = (-1, [])
        self._levels = self._all_levels()

    def _add_factors(self, index: int, network: nn.Module) -> None:
        recipe, seed = self.recipe, self.recipe.seed + index
        if recipe.start is not None:
            file = lora_start.start_files(recipe.start, len(self.networks))[index]
            pipeline = self.denoiser.plan.facts.pipeline
            lora_start.take_up(network, pipeline, file, seed=seed)
            return
        alpha = recipe.rank if recipe.alpha is None else recipe.alpha
        lora_adapter.add(network, rank=recipe.rank, alpha=alpha, targets=recipe.targets, seed=seed)

    def step(self, examples: Encoded) -> float:
        """Learn from one batch; the mean loss of its examples before it, on all ranks alike."""
        recipe = self.recipe
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for item in range(self.comm.rank, recipe.batch, self.comm.size):
            total += self._learned(self.drawn(examples, item), examples) / recipe.batch
        for factor in self.factors:  # of an expert that no level asked
            factor.grad = torch.zeros_like(factor) if factor.grad is None else factor.grad
        total = added_gradients(nn.ModuleList(self.networks), total, self.comm)
        nn.utils.clip_grad_norm_(self.factors, 1.0)
        self.optimiser.step()
        self._follow()
        self.step_index += 1
        return total

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average of the factors towards them."""
        early = (1 + self.step_index) / (EMA_RISE + self.step_index)
        keep = min(self.recipe.ema or 0.0, early)
        for slow, factor in zip(self.averages, self.factors, strict=bool(self.averages)):
            slow.lerp_(factor, 1 - keep)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the networks' factors are their average, where there is one."""
        kept = [factor.data for factor in self.factors]
        for factor, slow in zip(self.factors, self.averages, strict=bool(self.averages)):
            factor.data = slow
        try:
            yield
        finally:
            for factor, own in zip(self.factors, kept, strict=True):
                factor.data = own

    def _learned(self, draw: Draw, examples: Encoded) -> float:
        x0_BCTHW = examples.latents(draw.number)
        generator = torch.Generator().manual_seed(draw.seed)
        noise_BCTHW = torch.randn(x0_BCTHW.shape, generator=generator).to(x0_BCTHW)
        denoiser = self._denoiser(examples.size(draw.number))
        guidance = denoiser.plan.facts.guidance
        return denoiser.learn(
            x0_BCTHW,
            noise_BCTHW,
            draw.level,
            examples.text(draw.number if draw.has_caption else None),
            weight=1 / self.recipe.batch,
            embedded=self.recipe.guidance_scale if guidance.embedded else 0.0,
        )

    def _denoiser(self, size: Size) -> MethodDenoiser:
        return self.others.get(size, self.denoiser)

    def drawn(self, examples: Encoded, item: int) -> Draw:
        """The item-th of this step's, by their numbers alone.

        All are taken once, in an order of their own, before any is taken again.
        """
        index = self.step_index * self.recipe.batch + item
        epoch, place = divmod(index, len(examples))
        number = self._in_order(epoch, len(examples))[place]
        generator = torch.Generator().manual_seed((self.recipe.seed * 1_000_003 + index) % 2**63)
        u = torch.rand((), generator=generator, dtype=torch.float64)
        return Draw(
            number=number,
            level=self._level(generator, self._denoiser(examples.size(number))),
            has_caption=float(u) >= self.recipe.caption_dropout,
            seed=int(torch.randint(2**62, (), generator=generator)),
        )

    def _in_order(self, epoch: int, number: int) -> list[int]:
        if self._order[0] != epoch:
            generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + epoch)
            self._order = (epoch, torch.randperm(number, generator=generator).tolist())
        return self._order[1]

    def _level(self, generator: torch.Generator, denoiser: MethodDenoiser) -> NoiseLevel:
        """Of rectified flow by the recipe's density, shifted as the canvas needs; else any."""
        schedule, shift = denoiser.plan.facts.schedule, denoiser.stage.table.shift
        if not schedule.flow:
            index = int(torch.randint(len(self._levels), (), generator=generator))
            return self._levels[index]
        (time,) = sample(Shifted(self.recipe.density, shift or 1.0), 1, generator).tolist()
        length = int(schedule.options.get("num_train_timesteps", 1000))
        return NoiseLevel(time * length, 1 - time, time)

    def _all_levels(self) -> list[NoiseLevel]:
        """All levels that a model of no flow was trained at."""
        schedule = self.denoiser.plan.facts.schedule
        if schedule.flow:
            return []
        at_noise = schedule.prediction != "epsilon"  # of which else nothing could be learned
        return [level for level in trained_levels(schedule) if level.alpha > 0 or at_noise]

    @property
    def rate(self) -> float:
        """Rises over the first tenth, 100 steps at most, and falls by a cosine to a hundredth."""
        index, steps = self.step_index, self.recipe.steps
        done = (self.progress or 0.0) if steps is None else index / steps
        rise = max(warmed_up(index, WARM_UP), min(1.0, done / WARM_PART))
        if steps is not None:
            rise = warmed_up(index, max(1, min(WARM_UP, int(steps * WARM_PART))))
        return self.recipe.rate * rise * cosine(done)

    def save(self, folder: Path) -> None:
        """Write all that going on needs, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        factors = [lora_adapter.state(network) for network in self.networks]
        states = {"factors": factors, "optimiser": self.optimiser.state_dict()}
        states["averages"] = self.averages
        write(folder / STATE, states | {"step": self.step_index})

    def restore(self, folder: Path) -> None:
        """Go on from where `save` was called, if it was."""
        if (saved := read(folder / STATE)) is not None:
            for network, factors in zip(self.networks, saved["factors"], strict=True):
                lora_adapter.load_state(network, factors)
            self.optimiser.load_state_dict(saved["optimiser"])
            averages = saved.get("averages", [])
            self.averages = [a.to(f) for a, f in zip(averages, self.factors, strict=bool(averages))]
            self.step_index = saved["step"]
