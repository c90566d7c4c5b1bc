"""All that is decided before work starts, and the table that `frieze plan` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from frieze.cluster.layout import Band, Mesh

from ..checkpoints import lora
from ..checkpoints.decoder import DecoderFacts
from ..checkpoints.facts import ModelFacts
from ..costs import device_kinds
from ..costs.cost_table import cost_table
from ..costs.device_kinds import DeviceKind
from ..costs.prediction import Placement, Prediction, predict
from ..costs.stage_costs import RankCost, RenderCost
from ..extrapolation.guides import Detail
from ..extrapolation.method import Method
from ..inputs.inpaint_canvas import InpaintCanvas, inpaint_canvas
from ..inputs.sources import Source
from ..models import strategies
from ..models.device import device_type, has_cuda
from ..models.family import Guidance
from ..sampling.frame_windows import FrameWindow, frame_windows
from ..spec import step_cache
from ..spec.networks import all_loras
from ..spec.render_spec import RenderSpec
from ..spec.units import GIB
from .decoder_plan import redrawn
from .devices import on_cluster
from .estimate import Estimate
from .stage_plan import StagePlan, plan_warnings, printed

if TYPE_CHECKING:
    from .decoder_memory import Enlarged


def at_step(plan: CanvasPlan, stage_index: int, step: int) -> str:
    """Where a render stood, as told to people: steps count from 1, and 0 is before the first."""
    of_step = f"step {step} of {plan.stages[stage_index].num_steps}"
    return f"{of_step if step else 'the start'} of stage {stage_index + 1} of {len(plan.stages)}"


def arrays(method: Method, num_stages: int, *, redraws: bool = False) -> tuple[str, ...]:
    """Names of what is kept for guidance: guiding latents, or every step's x0 of a stage.

    Where a picture is redrawn, its latents guide the first stage.
    """
    guide = method.guide
    if guide is None:
        return ()
    first = ("0-guide",) if redraws else ()
    guided = range(1, num_stages)
    return first + tuple(f"{i if guide.array == 'guide' else i - 1}-{guide.array}" for i in guided)


@dataclass(frozen=True)
class CanvasPlan:
    """Everything that is decided before work starts. `str(plan)` is the table `plan` prints."""

    spec: RenderSpec
    facts: ModelFacts
    method: Method
    guidance: Guidance
    stages: tuple[StagePlan, ...]
    mesh: Mesh
    block: tuple[int, int]
    sources: Mapping[str, Source]
    # Frequencies that drafts of the picture showed to repeat; None: not looked for, or not yet.
    detected: tuple[int, ...] | None = None
    # What makes the picture of the last stage's, if not the autoencoder alone: then the stages
    # have another size, and `decoded` are the picture's rows of each worker, in pixels.
    decoder: DecoderFacts | None = None
    decoded: tuple[Band, ...] = ()
    # Of the devices that its seconds are told for; None: of those here.
    kind_name: str | None = None

    @cached_property
    def estimate(self) -> Estimate:
        """Bytes on each device: the model's own modules run on tensors without memory.

        Takes about a second, and imports diffusers; so it is made when it is asked for.
        """
        from .memory_trace import estimate

        rows = self.block[0] if self.decoder is None else self.size(-1)[0]
        found = estimate(*self._traced, **self._options, rows_per_block=rows)
        if self.decoder is None:
            return found
        from .decoder_memory import with_decoder
        from .flop_trace import encoding

        found = with_decoder(found, self.decoder, self.spec, self._enlarged)
        flops, attention = encoding(self.facts, self.spec, self.stages)
        return replace(found, encoder_flops=flops, attention_flops=attention)

    @cached_property
    def cost(self) -> RenderCost:
        """FLOPs, bytes between ranks and all else that takes time, counted as memory is."""
        from .flop_trace import cost

        if self.decoder is None:
            return cost(*self._traced, **self._options, rows_per_block=self.block[0])
        from .decoder_memory import decoder_work

        found = cost(*self._traced, **self._options, rows_per_block=None)
        each = decoder_work(self.decoder, self.spec, self._enlarged).times(1 / self.spec.workers)
        return replace(found, decode=(RankCost(self.spec.workers, each),))

    @property
    def _traced(self) -> tuple[ModelFacts, RenderSpec, tuple[StagePlan, ...], Mesh]:
        return self.facts, self.spec, self.stages, self.mesh

    @property
    def _options(self) -> dict[str, Any]:
        return {"guidance": self.guidance, "method": self.method}

    @property
    def _enlarged(self) -> list[Enlarged]:
        from .decoder_memory import Enlarged

        return [
            Enlarged(self.stages[n].canvas, _pixels(self, n), self.enlarges(n), size, rows)
            for n, size, rows in self.enlargements
        ]

    @property
    def changes_network(self) -> bool:
        """Whether steps of the method cost otherwise than the network's own."""
        return self.method.windows is not None or self.method.convolutions is not None

    @property
    def is_costed(self) -> bool:
        """Whether the FLOPs were counted."""
        return "cost" in self.__dict__

    @property
    def is_estimated(self) -> bool:
        """Whether the estimate was made."""
        return "estimate" in self.__dict__

    @property
    def num_denoised(self) -> int:
        """Stages that have steps; those after them encode what the decoder enlarges again."""
        return sum(stage.num_steps > 0 for stage in self.stages)

    @property
    def num_encoded(self) -> int:
        """Those: the picture of an upscale, and what the decoder's rounds have made."""
        return len(self.stages) - self.num_denoised

    @property
    def num_steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.num_steps for stage in self.stages)

    @property
    def num_halves(self) -> int:
        """Prompts that are encoded for each text: a negative one too where a stage follows it."""
        return max(stage.guidance.num_halves for stage in self.stages)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights' files that are loaded: of an upscale no denoiser's."""
        sizes = self.facts.cost.weight_bytes
        return sum(sizes[part] for part in sizes if self.num_steps or part == "vae")

    @property
    def frames(self) -> int | None:
        """Frames of a clip; None for a picture."""
        return self.spec.num_frames if self.spec.num_frames > 1 else None

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts of all stages and of their edits, each once."""
        return tuple(dict.fromkeys(text for stage in self.stages for text in stage.prompts))

    @property
    def num_blocks(self) -> int:
        """Blocks of the finished picture or clip."""
        rows, columns = self.block
        still = -(-self.spec.height // rows) * -(-self.spec.width // columns)
        return still * self.spec.num_frames

    def enlarges(self, stage_index: int) -> bool:
        """Whether a stage has no steps: it encodes a picture, which the decoder enlarges."""
        return stage_index < len(self.stages) and not self.stages[stage_index].num_steps

    def redraws(self, stage_index: int) -> bool:
        """Whether a stage draws over the picture that was handed in to be made larger."""
        return not stage_index and "upscale" in self.sources and not self.enlarges(0)

    @property
    def frame_windows(self) -> tuple[FrameWindow, ...]:
        """The latent frames that the network is given together: windows of a long clip's redraw."""
        latent, frames = self.facts.latent, self.stages[0].canvas.frames
        known = latent.frames(self.facts.training_frames) if self.redraws(0) else frames
        return frame_windows(frames, known)

    def is_guided(self, stage_index: int) -> bool:
        """Whether the method guides a stage, by the one before it or by what it redraws."""
        follows = stage_index > 0 or self.redraws(0)
        return follows and self.method.guide is not None and not self.enlarges(stage_index)

    def anchor(self, stage_index: int) -> tuple[str, tuple[int, int]] | None:
        """The array that holds such a stage's picture, and its height and width in pixels."""
        if not self.enlarges(stage_index):
            return None
        if stage_index:
            return f"{stage_index - 1}-picture", self.size(stage_index)
        return "upscale", self.sources["upscale"].size

    @property
    def enlargements(self) -> tuple[tuple[int, tuple[int, int], int], ...]:
        """(stage, size, rows drawn at a time) of what the decoder makes, in order."""
        found: list[tuple[int, tuple[int, int], int]] = []
        last = len(self.stages) - 1
        for index in range(max(0, self.num_denoised - 1), last):
            rows = self.stages[index + 1].align * self.facts.latent.downscale
            found.append((index, self.size(index + 1), rows))
        return (*found, (last, (self.spec.height, self.spec.width), self.block[0]))

    @property
    def painted(self) -> tuple[int, ...]:
        """Stages whose picture the next one enlarges; it is kept in the store."""
        later = enumerate(self.stages[1:])
        return tuple(index for index, stage in later if stage.enlarge == "pixels")

    @property
    def arrays(self) -> tuple[str, ...]:
        """The store's arrays besides the finished pixels, by name and in order."""
        stages = range(len(self.stages))
        drawn = stages[: self.num_denoised]
        first: tuple[str, ...] = tuple(n for n in ("init", "upscale", "alpha") if n in self.sources)
        if self.inpaint is not None:
            first = tuple(dict.fromkeys((*(f"{i}-init" for i in drawn), self.given)))
        frames = ("image", *(f"{i}-image" for i in drawn)) if "image" in self.sources else ()
        followed = (f"{i}-control" for i in drawn if self.spec.control)
        masks = (f"{i}-mask" for i in drawn[1:]) if self.has_regions else ()
        edits = (f"{i}-edits" for i in stages if self.stages[i].edits)
        kept = arrays(self.method, len(drawn), redraws=self.redraws(0))
        pictures = (f"{i}-picture" for i in self.painted)
        return (*map(str, stages), *pictures, *first, *frames, *masks, *edits, *followed, *kept)

    @property
    def has_regions(self) -> bool:
        """Whether the method guides what is inside the mask otherwise."""
        return "mask" in self.sources and isinstance(self.method.guide, Detail)

    @cached_property
    def inpaint(self) -> InpaintCanvas | None:
        """What is redrawn in part, on its canvas; None where it is nothing, or all."""
        return inpaint_canvas(self.spec, self.sources)

    @property
    def given(self) -> str:
        """The array with the pixels that stay, at the picture's size, where there are some."""
        return "given" if self.decoder else f"{len(self.stages) - 1}-init"

    def array(self, name: str) -> int:
        """Where one of the `arrays` lies in the store."""
        return self.arrays.index(name)

    def size(self, stage_index: int) -> tuple[int, int]:
        """A stage's height and width in pixels."""
        canvas, downscale = self.stages[stage_index].canvas, self.facts.latent.downscale
        return canvas.height * downscale, canvas.width * downscale

    @property
    def device_kind(self) -> DeviceKind | None:
        """Figures of the kind named, or of the devices here; None where there are none.

        Raises `SpecError` for a name without figures.
        """
        if self.kind_name is not None:
            return device_kinds.device_kind(self.kind_name)
        if on_cluster(self.spec):
            return None
        kind = device_type(self.spec.device)
        if kind != "cpu" and not has_cuda():
            return None
        return device_kinds.known(device_kinds.kind_here(kind))

    @property
    def predicted(self) -> Prediction | None:
        """Seconds on those devices, without the start; None where there are no figures."""
        if (kind := self.device_kind) is None:
            return None
        placement: Placement = "cores" if kind.is_processor else "apart"
        if self.spec.local:
            placement = "turns"
        return predict(self.cost, kind, self.spec.dtype, placement, self.num_blocks)

    def cost_lines(self) -> list[str]:
        """What the plan says of its cost, which is counted if it was not, on devices of a kind."""
        kind = self.device_kind
        lines = cost_table(self.cost, self.predicted)
        told = f"no figures of these devices; --device-kind names some, and {device_kinds.MEASURE}"
        lines.append(f"seconds   {kind.told(self.spec.dtype) if kind else told}")
        if self.num_steps:
            lines.append(
                f"work      {self.cost.relative:.2f} of the FLOPs of drawing {self.spec.width} x "
                f"{self.spec.height} px directly with full attention"
            )
        return lines

    def __str__(self) -> str:
        return "\n".join(_table(self))


def _table(plan: CanvasPlan) -> list[str]:
    spec, latent = plan.spec, plan.facts.latent
    kind, clip = "picture", ""
    begin = f", from stage {spec.edit_stage}" if spec.edit_stage > 1 else ""
    if plan.frames:
        kind, clip = "clip", f", {plan.frames} frames at {spec.fps:g} a second"
    method = f"method    {spec.method}" + (f": {plan.method.note}" if plan.method.note else "")
    lines = [
        f"{kind:<9} {spec.width} x {spec.height} px{clip}, {spec.bits} bit, seed {spec.seed}"
        + (f", wraps {spec.wrap}" if spec.wrap else "")
        + (f", watermark {spec.watermark}" if spec.watermark else ""),
        *printed(spec),
        f"model     {plan.facts.family}, trained at {plan.facts.training_size} px "
        f"({plan.facts.folder})",
        *([method] if plan.num_steps else ()),
        *(f"lora      {line}" for line in lora.summary(all_loras(spec))),
        *([f"redraws   {plan.inpaint}"] if plan.inpaint else ()),
        *(f"edit      {each.mask}: {each.prompt}{begin}" for each in spec.edit),
        *(redrawn(spec, plan.sources["upscale"], plan.frame_windows) if plan.redraws(0) else ()),
        *step_cache.summary(spec.cache, plan.stages, plan.facts.num_blocks),
        *_decoder(plan),
        *plan_warnings(spec, plan.facts, plan.stages, plan.decoder is not None),
        f"workers   {spec.workers} (ring {plan.mesh.ring} x ulysses {plan.mesh.ulysses}"
        + (f" x guidance {plan.mesh.guidance})" if plan.mesh.guidance > 1 else ")")
        + (f", up to {spec.max_workers} where there is room" if spec.max_workers else ""),
        f"blocks    {plan.num_blocks} of {plan.block[1]} x {plan.block[0]} px",
    ]
    for number, stage in enumerate(plan.stages, 1):
        height, width = _pixels(plan, number - 1)
        rows = " + ".join(str(band.rows * latent.downscale) for band in stage.bands)
        steps = "encodes what is enlarged"
        if stage.num_steps:
            steps = f"{stage.num_steps} steps{_noise(plan.facts, stage)}"
            if (again := stage.draws.count(stage.resamplings)) and stage.resamplings > 1:
                steps += f", {again} of them {stage.resamplings} times"
        lines.append(f"stage {number}   {width} x {height} px, {steps}, bands of {rows} rows")
        if tiling := stage.num_steps and strategies.tiling(spec, plan.facts, stage.canvas):
            lines.append(f"          {tiling.told(stage.bands, latent.downscale)}")
        if plan.is_costed and plan.changes_network and stage.num_steps:
            lines += (f"          {line}" for line in plan.cost.lines(number - 1))
    if plan.is_estimated:
        parts = (
            f"{name.replace('_', ' ')} {size / GIB:.2f}" for name, size in plan.estimate.rows()
        )
        total = plan.estimate.bytes_per_device / GIB
        if flops := plan.estimate.encoder_flops:
            part = plan.estimate.attention_flops / flops
            lines.append(
                f"encoding  {flops / 1e12:.3g} TFLOP by the autoencoder, {part:.2f} of them for "
                "attention, which grows with the square of a picture's cells"
            )
        if flops := plan.estimate.decoder_flops:
            lines.append(f"decoding  {flops / 1e12:.3g} TFLOP by the decoder, at most")
        lines.append(f"memory    {total:.2f} GiB on each device: {', '.join(parts)}")
    return lines + plan.cost_lines() if plan.is_costed else lines


def _pixels(plan: CanvasPlan, stage_index: int) -> tuple[int, int]:
    """Height and width of what a stage draws or is handed, in pixels."""
    anchor = plan.anchor(stage_index)
    return plan.size(stage_index) if anchor is None else anchor[1]


def _decoder(plan: CanvasPlan) -> list[str]:
    """How the picture is made of the last stage's, where another decoder makes it."""
    if plan.decoder is None:
        return []
    config, (first, *_) = plan.decoder.config, plan.enlargements
    sizes = [_pixels(plan, first[0]), *(size for _, size, _ in plan.enlargements[:-1])]
    steps = "1 step" if config.num_steps == 1 else f"{config.num_steps} steps"
    way = ", then from ".join(f"{width} x {height}" for height, width in sizes)
    return [
        f"decoder   InfGen from {way} px, {steps}, {config.mode} attention ({plan.decoder.folder})"
    ]


def _noise(facts: ModelFacts, stage: StagePlan) -> str:
    """How much noise a stage begins with: a sigma of rectified flow, else a part of the steps."""
    if not facts.schedule.flow:
        return "" if stage.start == 1 else f", the last {stage.start:.3g} of the schedule"
    shift = "" if stage.table.shift is None else f", shift {stage.table.shift:.3g}"
    return f" from sigma {stage.start:g}{shift}"
