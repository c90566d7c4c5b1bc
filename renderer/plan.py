"""spec + model facts + method -> CanvasPlan: bands, blocks, noise levels, bytes.

What cannot be drawn is refused here, before any work, with what would work instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from frieze.cluster.layout import Band, Canvas, LayoutError, Mesh, cut

from . import budget, devices, guides, lora, options, refusals
from .errors import PlanError
from .estimate import GIB, Estimate
from .family import Guidance, ModelFacts, describe
from .guidance import of_stage, strength
from .method import Method, Stage, load_method
from .schedules import Level, Table, table
from .sources import Source, look
from .spec import RenderSpec

BLOCK_SIZES = (512, 256, 128, 64, 32, 16)


@dataclass(frozen=True)
class StagePlan:
    """One stage: its canvas in latent cells, who draws which rows, and its noise levels.

    `shares` are the rows that each worker keeps, saves and decodes; `bands` those that it
    denoises: the same, unless two workers draw one band for two prompts, and keep half of it each.
    """

    canvas: Canvas
    bands: tuple[Band, ...]
    shares: tuple[Band, ...]
    align: int
    table: Table
    start: float
    enlarge: str
    prompt: str
    guidance: Guidance

    @property
    def levels(self) -> tuple[Level, ...]:
        """Noise levels, one more than steps."""
        return self.table.levels

    @property
    def num_steps(self) -> int:
        """Steps of this stage: intervals between noise levels."""
        return len(self.levels) - 1


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

    @cached_property
    def estimate(self) -> Estimate:
        """Bytes on each device: the model's own modules run on tensors without memory.

        Takes about a second, and imports diffusers; so it is made when it is asked for.
        """
        from .trace import estimate

        return estimate(
            self.facts,
            self.spec,
            self.stages,
            self.mesh,
            guidance=self.guidance,
            positions=self.method.positions,
            rows_per_block=self.block[0],
        )

    @property
    def is_estimated(self) -> bool:
        """Whether the estimate was made."""
        return "estimate" in self.__dict__

    @property
    def num_steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.num_steps for stage in self.stages)

    @property
    def frames(self) -> int | None:
        """Frames of a clip; None for a picture."""
        return self.spec.num_frames if self.spec.num_frames > 1 else None

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts of all stages, each once."""
        return tuple(dict.fromkeys(stage.prompt for stage in self.stages))

    @property
    def num_blocks(self) -> int:
        """Blocks of the finished picture or clip."""
        rows, columns = self.block
        still = -(-self.spec.height // rows) * -(-self.spec.width // columns)
        return still * self.spec.num_frames

    @property
    def painted(self) -> tuple[int, ...]:
        """Stages whose picture the next one enlarges; it is kept in the store."""
        later = enumerate(self.stages[1:])
        return tuple(index for index, stage in later if stage.enlarge == "pixels")

    @property
    def arrays(self) -> tuple[str, ...]:
        """The store's arrays besides the finished pixels, by name and in order."""
        stages = range(len(self.stages))
        first = ("init",) if "init" in self.sources else ()
        frames = ("image", *(f"{i}-image" for i in stages)) if "image" in self.sources else ()
        kept = guides.arrays(self.method, len(self.stages))
        pictures = (f"{i}-picture" for i in self.painted)
        return (*map(str, stages), *pictures, *first, *frames, *kept)

    def array(self, name: str) -> int:
        """Where one of the `arrays` lies in the store."""
        return self.arrays.index(name)

    def size(self, stage_index: int) -> tuple[int, int]:
        """A stage's height and width in pixels."""
        canvas, downscale = self.stages[stage_index].canvas, self.facts.latent.downscale
        return canvas.height * downscale, canvas.width * downscale

    def __str__(self) -> str:
        return "\n".join(_table(self))


def plan(
    spec: RenderSpec,
    *,
    block: int | None = None,
    sources: Mapping[str, Source] | None = None,
    detected: Sequence[int] | None = None,
) -> CanvasPlan:
    """Decide bands, blocks and noise levels for a spec.

    `block` fixes the block size in pixels, `sources` what the render started from and `detected`
    the frequencies that its drafts showed to repeat, as a resumed store must. Raises `PlanError`,
    `ModelError`, `SpecError`.
    """
    devices.check(spec)
    made = _made(spec, block, sources, detected)
    budget.check(made, lambda changed: _made(changed, block, made.sources, detected))
    return made


def _made(
    spec: RenderSpec,
    block: int | None,
    sources: Mapping[str, Source] | None,
    detected: Sequence[int] | None,
) -> CanvasPlan:
    """The plan of a spec, whatever memory it needs."""
    facts = describe(spec.model, spec.revision, spec.variant)
    method = load_method(_settled(spec, detected), facts)
    refusals.check_method(spec, facts, method)
    refusals.check_model(spec, facts)
    refusals.check_variant(spec, facts)
    lora.check(lora.parse(spec.lora + spec.lora_2), facts)
    guidance = strength(spec, facts)
    mesh = _mesh(spec, guidance)
    size = block or spec.chunk or _block_size(spec, facts)
    refusals.check_block(size, spec, facts)
    found = _sources(spec, facts) if sources is None else sources
    stages = tuple(
        _stage(index, method, spec, facts, mesh, size) for index in range(len(method.stages))
    )
    guides.check(method, stages, facts.latent.patch, animates="image" in found)
    return CanvasPlan(
        spec=spec,
        facts=facts,
        method=method,
        guidance=guidance,
        stages=stages,
        mesh=mesh,
        block=(size, spec.width if spec.num_frames > 1 else min(size, spec.width)),
        sources=found,
        detected=None if detected is None else tuple(detected),
    )


def _settled(spec: RenderSpec, detected: Sequence[int] | None) -> RenderSpec:
    """The spec with what was detected where its method wishes for that."""
    if detected is None:
        return spec
    found = options.settled(spec.method_options, detected)
    return spec.model_copy(update={"method_options": found})


def _sources(spec: RenderSpec, facts: ModelFacts) -> dict[str, Source]:
    """The picture or clip to redraw, the frame to animate."""
    if facts.takes_image and not facts.image_optional and spec.image is None:
        raise PlanError(f"{facts.pipeline} animates a first frame; give it with image")
    if spec.image is not None and not facts.takes_image:
        raise PlanError(
            f"image {spec.image!r}: {facts.pipeline} starts from no frame; init redraws a picture"
        )
    found = {}
    if spec.init is not None:
        found["init"] = look(spec.init, "init", num_frames=spec.num_frames)
    if spec.image is not None:
        found["image"] = look(spec.image, "image", num_frames=1)
    return found


def _mesh(spec: RenderSpec, guidance: Guidance) -> Mesh:
    if spec.park is not None and not spec.local:
        raise PlanError(f"park {spec.park!r} is for bands of one process; use it with --local")
    halves = spec.guidance_ranks
    if halves > guidance.num_halves:
        raise PlanError(
            f"guidance_ranks {halves}: there is one prompt to evaluate; give a negative_prompt "
            "and a guidance scale above 1, or use 1"
        )
    if spec.workers % halves:
        raise PlanError(f"guidance_ranks {halves} does not divide {spec.workers} workers")
    ranks = spec.workers // halves
    if ranks % spec.ulysses:
        raise PlanError(
            f"ulysses {spec.ulysses} does not divide {ranks} workers; "
            f"use one of {[n for n in range(1, ranks + 1) if ranks % n == 0]}"
        )
    return Mesh(guidance=halves, ring=ranks // spec.ulysses, ulysses=spec.ulysses)


def _block_size(spec: RenderSpec, facts: ModelFacts) -> int:
    """The largest block that leaves a row of blocks to each worker, and four rows in all."""
    wanted = max(4, spec.most_workers)
    unit = facts.latent.unit
    sizes = [size for size in BLOCK_SIZES if size % unit == 0] or [unit]
    for size in sizes:
        if spec.height // size >= wanted:
            return size
    return sizes[-1]


def _stage(
    index: int, method: Method, spec: RenderSpec, facts: ModelFacts, mesh: Mesh, block: int
) -> StagePlan:
    stage, last = method.stages[index], index + 1 == len(method.stages)
    unit, latent = facts.latent.unit, facts.latent
    if last and stage.scale != 1.0:
        raise PlanError(f"the last stage has scale {stage.scale}; the picture itself is scale 1")
    height, width = (
        max(1, round(side * stage.scale / unit)) * latent.patch
        for side in (spec.height, spec.width)
    )
    canvas = Canvas(latent.frames(spec.num_frames), height, width)
    # Rows that are saved together: the picture's blocks at the end, at most 64 files before.
    patch_rows = latent.patch * max(1, height // (64 * latent.patch))
    align = block // latent.downscale if last else patch_rows
    try:
        shares = cut(height, spec.workers, align=align)
    except LayoutError as error:
        raise PlanError(f"a stage of {height * latent.downscale} rows: {error}") from None
    twins = [shares[i : i + mesh.guidance] for i in range(0, len(shares), mesh.guidance)]
    bands = tuple(Band(each[0].start, each[-1].stop) for each in twins)
    redrawn = spec.strength if index == 0 and spec.init is not None else 1.0
    levels = _levels(stage, spec, facts, canvas, redrawn)
    prompt = spec.prompt if stage.prompt is None else stage.prompt
    told = of_stage(stage.guidance_scale, spec, facts)
    return StagePlan(canvas, bands, shares, align, levels, stage.start, stage.enlarge, prompt, told)


def _levels(
    stage: Stage, spec: RenderSpec, facts: ModelFacts, canvas: Canvas, strength: float
) -> Table:
    patch = facts.latent.patch
    return table(
        facts.schedule,
        stage.steps or spec.num_inference_steps,
        tokens=canvas.frames * (canvas.height // patch) * (canvas.width // patch),
        training_tokens=facts.training_tokens,
        shift=stage.shift or spec.shift,
        start=stage.start,
        strength=strength,
    )


def _table(made: CanvasPlan) -> list[str]:
    spec, latent = made.spec, made.facts.latent
    kind, clip = "picture", ""
    if made.frames:
        kind, clip = "clip", f", {made.frames} frames at {spec.fps:g} a second"
    lines = [
        f"{kind:<9} {spec.width} x {spec.height} px{clip}, {spec.bits} bit, seed {spec.seed}",
        f"model     {made.facts.family}, trained at {made.facts.training_size} px "
        f"({made.facts.folder})",
        f"method    {spec.method}" + (f": {made.method.note}" if made.method.note else ""),
        *(f"lora      {line}" for line in lora.summary(lora.parse(spec.lora + spec.lora_2))),
        *_warning(made),
        f"workers   {spec.workers} (ring {made.mesh.ring} x ulysses {made.mesh.ulysses}"
        + (f" x guidance {made.mesh.guidance})" if made.mesh.guidance > 1 else ")")
        + (f", up to {spec.max_workers} where there is room" if spec.max_workers else ""),
        f"blocks    {made.num_blocks} of {made.block[1]} x {made.block[0]} px",
    ]
    for number, stage in enumerate(made.stages, 1):
        width, height = (
            stage.canvas.width * latent.downscale,
            stage.canvas.height * latent.downscale,
        )
        rows = " + ".join(str(band.rows * latent.downscale) for band in stage.bands)
        lines.append(
            f"stage {number}   {width} x {height} px, {stage.num_steps} steps from sigma "
            f"{stage.start:g}{_shift(stage)}, bands of {rows} rows"
        )
    if made.is_estimated:
        parts = (
            f"{name.replace('_', ' ')} {size / GIB:.2f}" for name, size in made.estimate.rows()
        )
        total = made.estimate.bytes_per_device / GIB
        lines.append(f"memory    {total:.2f} GiB on each device: {', '.join(parts)}")
    return lines


def _warning(made: CanvasPlan) -> list[str]:
    """That a method was asked for a size which the model knows."""
    spec, size = made.spec, made.facts.training_size
    is_known = max(spec.height, spec.width) <= size
    if spec.method in ("none", "auto") or not is_known:
        return []
    if spec.num_frames > made.facts.training_frames:
        return []
    return [f"warning   method {spec.method} changes nothing up to the trained {size} px"]


def _shift(stage: StagePlan) -> str:
    return "" if stage.table.shift is None else f", shift {stage.table.shift:.3g}"
