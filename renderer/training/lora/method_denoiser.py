"""A model's denoiser on one canvas, with the positions and the attention that a method gives it.

What a network is asked while it is trained is what a render of that size will ask it, through the
family's own forward pass.
Shape suffixes: B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.checkpoint import set_checkpoint_early_stop

from frieze.cluster.bands import band_mode, conv_shape
from frieze.cluster.comm import axis_comms
from frieze.cluster.comm import worlds as comms

from ...extrapolation.method import StepContext
from ...extrapolation.network_hooks import hook_method
from ...extrapolation.skip_filter import free_u
from ...models.family import BandPlace, Guidance, Model
from ...planning.canvas_plan import CanvasPlan
from ...sampling.noise_levels import NoiseLevel
from ...sampling.solver_step import SolverStep
from ...sampling.solvers import noised, solver
from ...worker.method_attention import (
    AttentionStep,
    MethodAttention,
    collect_tokens,
    register_token_hook,
)
from ...worker.network import band_place
from ...worker.stage_guides import Grid

CLEAN = NoiseLevel(0.0, 1.0, 0.0)
LEAST = 1e-4  # alpha and sigma are not divided by less


class MethodDenoiser:
    """A loaded model in the one stage of a plan, on one rank."""

    def __init__(self, plan: CanvasPlan, model: Model, *, autocast: bool = False) -> None:
        self.plan, self.model, self.autocast = plan, model, autocast
        self.stage = plan.stages[0]
        self.grid = Grid(self.stage.canvas, self.stage.bands)
        self.comms = axis_comms(comms.solo())
        self.modifier = MethodAttention(plan.method, plan.facts.training_tokens)
        if plan.method.needs_spectrum:
            register_token_hook(model.embedders)
        hook_method(model, plan.method)

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Of the latents."""
        canvas = self.stage.canvas
        return (1, self.plan.facts.latent.channels, canvas.frames, canvas.height, canvas.width)

    @contextmanager
    def at(self, level: NoiseLevel) -> Iterator[BandPlace]:
        """Inside, on this thread, the network is as a render has it at a noise level.

        A backward pass belongs inside too: it may run layers again.
        """
        place = band_place(self.plan, self.grid, 0)
        context = self._context(level)
        modifier, method = self.modifier, self.plan.method
        modifier.begin(self._step(place, context))
        shape = method.convolutions.shape(context) if method.convolutions else None
        kind = "cuda" if torch.cuda.is_available() and self._is_on_gpu else "cpu"
        with (
            conv_shape(shape),
            free_u(method.skips, self.comms.world, self.grid.bands),
            collect_tokens(modifier),
            torch.autocast(kind, torch.bfloat16, enabled=True) if self.autocast else nullcontext(),
            band_mode(
                self.comms,
                self.grid.bands,
                marks=self.model.denoiser_marks(level),
                canvas=self.grid.canvas,
                modifier=None if modifier.is_idle else modifier,
            ),
        ):
            yield place

    @property
    def _is_on_gpu(self) -> bool:
        return self.plan.spec.device != "cpu"

    def learn(
        self,
        x0_BCTHW: Tensor,
        noise_BCTHW: Tensor,
        level: NoiseLevel,
        tensors: Mapping[str, Tensor],
        *,
        weight: float,
        embedded: float,
    ) -> float:
        """Add the gradients of an example's loss times its weight; the loss.

        It is the mean squared error of what the network predicts: velocity, noise, or the picture.
        """
        told = {"weight": weight, "embedded": embedded}
        return float(self.gradients(x0_BCTHW, noise_BCTHW, level, tensors, **told))

    def gradients(
        self,
        x0_BCTHW: Tensor,
        noise_BCTHW: Tensor,
        level: NoiseLevel,
        tensors: Mapping[str, Tensor],
        *,
        weight: float,
        embedded: float,
    ) -> Tensor:
        """The same, its loss where it was made: of meta tensors there is no number."""
        x_BCTHW = noised(x0_BCTHW, noise_BCTHW, level)
        guidance = Guidance(embedded=embedded)
        with self.at(level) as place, torch.enable_grad():
            found_BCTHW = self.model.denoised(x_BCTHW, level, tensors, place, guidance)
            error_BCTHW = (found_BCTHW - x0_BCTHW).float() * self._gain(level)
            loss = error_BCTHW.square().mean()
            # In this thread, whose layers are as the method has them, and each of them whole.
            with torch.autograd.set_multithreading_enabled(False), set_checkpoint_early_stop(False):
                (loss * weight).backward()
        return loss.detach()

    def _gain(self, level: NoiseLevel) -> float:
        """How much larger an error of the prediction is than that of the clean latents.

        x is known: of velocity eps - x0 the error is 1 / sigma times as large, of eps alpha / sigma
        times, of v = alpha eps - sigma x0 again 1 / sigma times.
        """
        match self.plan.facts.schedule.prediction:
            case "velocity" | "v_prediction":
                return 1 / max(level.sigma, LEAST)
            case "epsilon":
                return level.alpha / max(level.sigma, LEAST)
        return 1.0

    @torch.no_grad()
    def drawn(self, halves: Sequence[Mapping[str, Tensor]], noise_BCTHW: Tensor) -> Tensor:
        """Clean latents from noise by the stage's steps, of one prompt, or also a negative one."""
        levels, model = self.stage.levels, self.model
        by = solver(self.plan.facts.schedule)
        x_BCTHW = noise_BCTHW * self.stage.table.scale
        history = (torch.zeros_like(x_BCTHW),) * by.num_history
        generator = torch.Generator().manual_seed(self.plan.spec.seed)

        def fresh() -> Tensor:
            return torch.randn(self.shape, generator=generator).to(x_BCTHW)

        for index, level in enumerate(levels[:-1]):
            with self.at(level) as place:
                each = [
                    model.denoised(x_BCTHW, level, tensors, place, self.stage.guidance).float()
                    for tensors in halves
                ]
            clean = each[0]
            if len(each) > 1:
                clean = model.guided(x_BCTHW, level, each[0], each[1], self.stage.guidance)
            x_BCTHW, history = by.step(SolverStep(index, levels, x_BCTHW, clean, history, fresh))
        return x_BCTHW

    def _context(self, level: NoiseLevel) -> StepContext:
        """The step of the stage that goes from about this noise level."""
        levels = self.stage.levels
        before = sum(each.sigma >= level.sigma for each in levels[:-1]) - 1
        context = StepContext.of(
            self.plan.facts,
            self.plan.spec.seed,
            self.grid.canvas,
            levels,
            stage=0,
            step=max(0, before),
        )
        return replace(context, level=level)

    def _step(self, place: BandPlace, context: StepContext) -> AttentionStep:
        canvas, patch = place.canvas, self.plan.facts.latent.patch
        tokens = canvas.frames * (canvas.height // patch) * (canvas.width // patch)
        return AttentionStep(
            self.model.axes(place),
            num_tokens=tokens,
            num_own=tokens,
            sigma=context.level.sigma,
            context=context,
        )
