"""The network's estimate of a rank's rows at one step: prompts, guidance, and a method's attention.

Windows, tiles and masks change what the network is given and asked here; the step around it stays.
Shape suffixes: B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor

from frieze.cluster.bands import BlockCache, Marks, conv_shape, hook_blocks
from frieze.cluster.comm import AxisComms, Comm, Like

from ..controlnets.parts import of_each
from ..controlnets.reduced import nearest
from ..extrapolation.method import StepContext
from ..extrapolation.skip_filter import free_u
from ..models.family import BandPlace, Conditioning, Guidance, Model
from ..models.positions import periodic
from ..models.regional_prompts import RegionalPrompts
from ..models.strategies import (
    CanvasParts,
    load_strategy,
    step_seed,
    strategy_step,
)
from ..planning.canvas_plan import CanvasPlan
from ..planning.stage_plan import num_cached
from ..spec.step_cache import step_cache
from .method_attention import AttentionStep, Entropies, MethodAttention, collect_tokens, gathering
from .stage_guides import Grid
from .tensor_trace import TensorTrace


class Network:
    """A loaded model in one stage on one rank, which evaluates one prompt or both.

    `pair` are the two ranks that evaluate one band for one prompt each, None where there are
    none. `conditioning` are the encoded prompts, `image` what a first frame adds to each, `edits`
    the prompts that parts of the canvas have. All ranks of a canvas call every method together.
    """

    def __init__(
        self,
        plan: CanvasPlan,
        stage_index: int,
        model: Model,
        comms: AxisComms,
        pair: Comm | None,
        *,
        conditioning: Mapping[str, Conditioning],
        image: Mapping[str, Tensor],
        edits: RegionalPrompts,
        trace: TensorTrace,
    ) -> None:
        self.plan, self.stage_index = plan, stage_index
        self.stage = plan.stages[stage_index]
        self.model, self.comms, self.pair = model, comms, pair
        self.conditioning, self.image, self.edits = conditioning, image, edits
        self.trace = trace
        self.strategy = load_strategy(plan.spec)
        # How this stage's attention is changed, for each half of the guidance evaluated here.
        self.modifiers = tuple(
            MethodAttention(plan.method, plan.facts.training_tokens)
            for _ in range(1 if pair else self.stage.guidance.num_halves)
        )
        # What steps reuse: of each half that is evaluated here the blocks' part, and of all halves
        # after how many steps it was computed last, 0 for never, and the latents that it was
        # computed from. From these a resumed render computes it again.
        self.cache = step_cache(plan.spec.cache) if plan.spec.cache else None
        self.caches = [
            BlockCache(self.cache.threshold, comms.world) if self.cache else None
            for _ in self.modifiers
        ]
        self.computed = [0] * num_cached(plan.spec, self.stage)
        self.inputs: list[Tensor] = []
        if self.cache:
            for level in self.stage.levels[:-1]:
                hook_blocks(model.block_run(level))

    def predict(self, x_BCTHW: Tensor, index: int, grid: Grid) -> Tensor:
        """x0 of this rank's rows of a grid at a step, guided, from its rows of the plain canvas.

        At a stage's first step methods measure the attention that they change in later ones. A
        clip that is redrawn and longer than trained is evaluated in windows of its frames.
        """
        self._recompute(index, grid)
        x = grid.into(self.comms.world, x_BCTHW)
        if len(windows := self.plan.frame_windows) == 1:
            return self._estimate(x, index, grid)
        blended = torch.zeros_like(x)
        for window in windows:
            frames, canvas = slice(window.start, window.stop), grid.canvas
            part = replace(grid, canvas=replace(canvas, frames=window.stop - window.start))
            found = self._estimate(x[:, :, frames].contiguous(), index, part)
            shares_T11 = x.new_tensor(window.shares)[:, None, None]
            blended[:, :, frames] += shares_T11 * found
        return blended

    def _estimate(self, x: Tensor, index: int, grid: Grid) -> Tensor:
        """The same of frames that the model knows together, on the grid itself."""
        place = band_place(self.plan, grid, self.comms.world.rank)
        context = self._context(index, grid)
        step = self._attention_step(place, grid, context)
        convolutions = self.plan.method.convolutions
        with (
            conv_shape(convolutions.shape(context) if convolutions else None),
            free_u(self.plan.method.skips, self.comms.world, grid.bands),
        ):
            halves = [
                self._half(number, x, grid, prompt, step)
                for number, prompt in enumerate(
                    self._prompts(place, grid, context.step, self._reduced(x, index, grid))
                )
            ]
        self._note(x, index)
        if self.pair is not None:
            halves = self.pair.all_gather(halves[0])
        for index, half in enumerate(halves):
            self.trace.take(f"estimate {index + 1}", half, place.band)
        if len(halves) == 1:
            return halves[0]
        positive, negative = halves
        return self.model.guided(x, context.level, positive, negative, self.stage.guidance)

    def entropies(self) -> list[Entropies]:
        """What the first step measured of this rank's halves of the guidance."""
        return [modifier.entropies() for modifier in self.modifiers]

    def concentrate(self, halves: Sequence[Entropies]) -> None:
        """Scale the heads of this rank's halves of the guidance by the entropies of all halves."""
        own = halves if self.pair is None else halves[self.pair.rank : self.pair.rank + 1]
        for modifier, entropies in zip(self.modifiers, own, strict=True):
            modifier.concentrate(entropies)

    def _prompts(
        self,
        place: BandPlace,
        grid: Grid,
        index: int,
        reduced: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> list[tuple[Mapping[str, Tensor], BandPlace]]:
        """What the network is told in a step, and where, for each half that is evaluated here.

        Parts of the canvas have prompts of their own, and no negative ones.
        """
        texts = [self.conditioning[prompt].halves[0] for prompt in self.edits.prompts]
        num_halves = self.stage.guidance.num_halves
        negative = self.conditioning[self.stage.prompt].halves[1:num_halves]
        follows = self._guidance(index).follows
        image = {n: x for n, x in self.image.items() if follows or not _is_control(n)}
        image |= reduced
        joined, asked = self.edits.joined(texts), getattr(self.model, "control_asks", ())
        # Some pipelines ask a ControlNet once, with the prompt, for both halves.
        of_prompt = {f"control_{n}": joined[n] for n in asked if any(map(_is_control, image))}
        halves: list[tuple[Mapping[str, Tensor], BandPlace]] = [
            ({**joined, **image}, self.edits.place(place, texts, grid.margin)),
            *(({**tensors, **of_prompt, **self._unguessed(image)}, place) for tensors in negative),
        ]
        return halves if self.pair is None else halves[self.pair.rank : self.pair.rank + 1]

    def _unguessed(self, image: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What a negative prompt is shown: in guess mode no ControlNet's picture."""
        guesses = any(control.guesses for control in self.stage.guidance.controls)
        return {n: x for n, x in image.items() if not (guesses and _is_control(n))}

    def _control_marks(self, tensors: Mapping[str, Tensor], guidance: Guidance) -> Sequence[Marks]:
        """The layers of ControlNets that attend, of those that are asked in a step."""
        if "control_latents" in tensors or not any(map(_is_control, tensors)):
            return ()
        marks = of_each(getattr(self.model, "control_marks", ()), len(guidance.controls))
        asked = zip(marks, guidance.controls, strict=True)
        return tuple(dict.fromkeys(each for own, how in asked if how.scale for each in own))

    def _reduced(self, x_BCTHW: Tensor, index: int, grid: Grid) -> Mapping[str, Tensor]:
        """All of the canvas as a ControlNet sees it that runs on a smaller map, if one does."""
        control = self.plan.method.control
        size = control.size(grid.canvas) if control else None
        if size is None or not self._guidance(index).follows:
            return {}
        rows, columns = nearest(grid.canvas.height, size[0]), nearest(grid.canvas.width, size[1])
        own = [[row for row in rows if row in range(b.start, b.stop)] for b in grid.bands]
        world, band = self.comms.world, grid.bands[self.comms.world.rank]
        held = [row - band.start for row in own[world.rank]]
        part = x_BCTHW[..., held, :][..., columns].contiguous()
        like = Like.of(part)
        parts = world.all_gather(part, [like.with_size(3, len(each)) for each in own])
        return {"control_latents": torch.cat(parts, dim=3)}

    def _guidance(self, index: int) -> Guidance:
        """The guidance of a step, in which ControlNets count or do not."""
        control, num_steps = self.plan.method.control, self.stage.num_steps
        guidance = self.stage.guidance.at(index, num_steps)
        if control and control.size(self.stage.canvas) and index >= control.until * num_steps:
            return replace(guidance, controls=())
        return guidance

    def _recompute(self, index: int, grid: Grid) -> None:
        """What a step may reuse and nobody has, after a resume, from what it was computed of."""
        run = self.model.block_run(self.stage.levels[index]) if self._may_reuse(index) else None
        for number, cache in enumerate(self.caches):
            half = number if self.pair is None else self.pair.rank
            if run is None or cache is None or cache.is_full or not self.computed[half]:
                continue
            place = band_place(self.plan, grid, self.comms.world.rank)
            context = self._context(self.computed[half] - 1, grid)
            if self.model.block_run(context.level) is run:
                prompt = self._prompts(place, grid, context.step)[number]
                step = self._attention_step(place, grid, context)
                self._half(number, self.inputs[half], grid, prompt, step)

    def _may_reuse(self, index: int) -> bool:
        """Not at a stage's ends, nor in the step before which attention changed by what the first
        one measured."""
        focus = self.plan.method.focus
        measures = focus is not None and focus.scale is not None
        is_within = self.cache is not None and self.cache.may_reuse(index, self.stage.num_steps)
        return is_within and not (measures and index == 1)

    def _note(self, x_BCTHW: Tensor, index: int) -> None:
        """Remember which halves were computed, and of what; all ranks do."""
        if self.cache is None:
            return
        own = [cache is not None and cache.is_reused for cache in self.caches]
        if self.pair is not None:
            told = self.pair.all_gather(torch.tensor(own, device=self.pair.device))
            own = torch.cat(told).tolist()
        for half, is_reused in enumerate(own):
            if not is_reused:
                self.computed[half], self.inputs[half] = index + 1, x_BCTHW
        if index + 1 == self.stage.num_steps:
            for cache in filter(None, self.caches):
                cache.clear()

    def _half(
        self,
        number: int,
        x_BCTHW: Tensor,
        grid: Grid,
        prompt: tuple[Mapping[str, Tensor], BandPlace],
        step: AttentionStep,
    ) -> Tensor:
        """x0 for one half of the guidance, its attention as the method changes it."""
        (tensors, place), modifier, cache = prompt, self.modifiers[number], self.caches[number]
        assert step.context is not None
        level, guidance = step.context.level, self._guidance(step.context.step)
        modifier.begin(replace(step, texts=place.texts))

        def begin(part: BandPlace) -> None:
            axes, drawn = self.model.axes(part), part.drawn
            number = drawn.frames * drawn.height * drawn.width // self.plan.facts.latent.patch**2
            modifier.begin(replace(step, axes=axes, num_tokens=number, num_own=number))

        prompts = []
        if place.texts:
            texts = (self.conditioning[prompt].halves[0] for prompt in self.edits.prompts)
            prompts = [{**text, **self.image} for text in texts]
        parts = CanvasParts(self.model, guidance, tensors, place, begin, prompts)
        reusing: AbstractContextManager[None] = nullcontext()
        if cache is not None:
            computes = not self._may_reuse(step.context.step)
            run = self.model.block_run(level)
            reusing = cache.step(run, step.num_own, computes=computes)
        with collect_tokens(modifier), reusing:
            return self.strategy.predict(
                lambda x, at: self.model.denoised(x, at, tensors, place, guidance),
                x_BCTHW,
                level,
                self.comms,
                bands=grid.bands,
                marks=(*self.model.denoiser_marks(level), *self._control_marks(tensors, guidance)),
                modifier=None if modifier.is_idle else modifier,
                step=strategy_step(
                    self.plan.facts,
                    self.plan.spec,
                    step_seed(self.plan.spec.seed, self.stage_index, step.context.step),
                    level,
                    parts.in_tiles,
                    parts.of_canvas,
                    grid.canvas.wraps,
                ),
            )

    def _context(self, index: int, grid: Grid) -> StepContext:
        return StepContext.of(
            self.plan.facts,
            self.plan.spec.seed,
            grid.canvas,
            self.stage.levels,
            stage=self.stage_index,
            step=index,
        )

    def _attention_step(self, place: BandPlace, grid: Grid, context: StepContext) -> AttentionStep:
        patch = self.plan.facts.latent.patch
        columns = place.canvas.frames * place.canvas.width // patch
        return AttentionStep(
            self.model.axes(place),
            num_tokens=columns * (place.canvas.height // patch),
            num_own=columns * (place.band.rows // patch),
            sigma=context.level.sigma,
            context=context,
            is_first=context.step == 0,
            gather=gathering(self.comms.world, [band.rows // patch for band in grid.bands]),
        )


def _is_control(name: str) -> bool:
    """Whether a tensor is for ControlNets."""
    return name.startswith("control")


def band_place(plan: CanvasPlan, grid: Grid, rank: int) -> BandPlace:
    """Where a rank's rows lie on a grid, and how their positions are counted."""
    method = plan.method
    told = plan.stages[0].canvas if method.micro_conditioning == "first" else None
    positions = periodic(method.positions, grid.canvas.wraps)
    return BandPlace(grid.bands[rank], grid.canvas, positions, method.absolute, told=told)
