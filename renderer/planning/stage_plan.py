"""What is decided of one stage: its canvas, bands and noise levels, and what it will not show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from frieze.cluster.layout import Band, Canvas, Mesh

from ..checkpoints.facts import LatentSpec, ModelFacts
from ..checkpoints.scheduler_config import other_schedule
from ..extrapolation.method import Method, Stage, StepContext
from ..models import strategies
from ..models.family import Guidance
from ..sampling.noise_levels import NoiseLevel, NoiseSchedule, Table
from ..sampling.resampling import RESAMPLINGS, draws
from ..sampling.schedule_table import table
from ..spec.edits import Edit
from ..spec.lora_refs import LoraRef
from ..spec.place import print_text
from ..spec.render_spec import RenderSpec

# The files of a denoiser, and of a second one.
Loras = tuple[tuple[LoraRef, ...], tuple[LoraRef, ...]]


BLOCK_SIZES = (512, 256, 128, 64, 32, 16)


def block_size(spec: RenderSpec, unit: int) -> int:
    """The largest block that leaves a row of blocks to each worker, and four rows in all."""
    wanted = max(4, spec.most_workers)
    sizes = [size for size in BLOCK_SIZES if size % unit == 0] or [unit]
    for size in sizes:
        if spec.height // size >= wanted:
            return size
    return sizes[-1]


def stage_bands(shares: Sequence[Band], mesh: Mesh) -> tuple[Band, ...]:
    """The bands of which so many workers keep shares: two each, where a prompt is for each."""
    pairs = [shares[i : i + mesh.guidance] for i in range(0, len(shares), mesh.guidance)]
    return tuple(Band(pair[0].start, pair[-1].stop) for pair in pairs)


def stage_scales(stage: Stage) -> dict[str, float]:
    """A stage's own guidance scales, by the spec's fields."""
    scales = {"guidance_scale": stage.guidance_scale, "true_cfg_scale": stage.true_cfg_scale}
    return {name: scale for name, scale in scales.items() if scale is not None}


def stage_schedule(stage: Stage, facts: ModelFacts) -> NoiseSchedule:
    """A stage's own scheduler, or the picture's."""
    return other_schedule(facts.schedule, stage.scheduler, stage.scheduler_options)


def stage_loras(stage: Stage, spec: RenderSpec) -> Loras:
    """A stage's own LoRAs, or the picture's."""
    first = spec.lora if stage.lora is None else stage.lora
    return first, spec.lora_2 if stage.lora_2 is None else stage.lora_2


@dataclass(frozen=True)
class StagePlan:
    """One stage: its canvas in latent cells, who draws which rows, and its noise levels.

    `shares` are the rows that each worker keeps, saves and decodes; `bands` those that it
    denoises: the same, unless two workers draw one band for two prompts, and keep half of it each.
    `schedule` is what its levels and its steps are of, `loras` those that draw it.
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
    schedule: NoiseSchedule
    loras: Loras = ((), ())
    # How often noisy steps are drawn, so that what is redrawn in part fits what stays.
    resamplings: int = 1
    # What is drawn otherwise in parts of it, each behind the masks of the store in this order.
    edits: tuple[Edit, ...] = ()

    @property
    def prompts(self) -> tuple[str, ...]:
        """Its own, then its edits'."""
        return (self.prompt, *(edit.prompt for edit in self.edits))

    @property
    def levels(self) -> tuple[NoiseLevel, ...]:
        """Noise levels, one more than steps."""
        return self.table.levels

    @property
    def num_steps(self) -> int:
        """Steps of this stage: intervals between noise levels."""
        return len(self.levels) - 1

    @property
    def draws(self) -> tuple[int, ...]:
        """How often each step is drawn."""
        return draws(self.levels, self.resamplings)


def num_cached(spec: RenderSpec, stage: StagePlan) -> int:
    """Evaluations of a step, for each of which a step cache has latents in the state."""
    return stage.guidance.num_halves if spec.cache and stage.num_steps else 0


class Grid(NamedTuple):
    """A stage's canvas, of whole units of so many pixels; its noise levels if they were asked."""

    canvas: Canvas
    unit: int
    levels: Table | None = None


def stage_grid(index: int, method: Method, spec: RenderSpec, facts: ModelFacts) -> Grid:
    """The units are larger where the stage's convolutions go farther."""
    stage, latent = method.stages[index], facts.latent
    canvas = stage_canvas(stage, spec, latent, latent.unit)
    if (convolutions := method.convolutions) is None:
        return Grid(canvas, latent.unit)
    levels = stage_levels(index, stage, spec, facts, canvas)
    contexts = (
        StepContext.of(facts, spec.seed, canvas, levels.levels, stage=index, step=step)
        for step in range(len(levels.levels) - 1)
    )
    shapes = [shape for context in contexts if (shape := convolutions.shape(context))]
    unit = latent.unit * max((shape.reduction for shape in shapes), default=1)
    whole = stage_canvas(stage, spec, latent, unit)
    # Noise levels may follow the number of tokens.
    return Grid(whole, unit, levels if whole == canvas else None)


def stage_canvas(stage: Stage, spec: RenderSpec, latent: LatentSpec, unit: int) -> Canvas:
    """A stage's canvas, of whole units."""
    height, width = (
        max(1, round(side * stage.scale / unit)) * unit // latent.downscale
        for side in (spec.height, spec.width)
    )
    return Canvas(latent.frames(spec.num_frames), height, width, spec.wrap or "")


def stage_levels(
    index: int, stage: Stage, spec: RenderSpec, facts: ModelFacts, canvas: Canvas
) -> Table:
    """Its noise levels."""
    redrawn = spec.strength if index == 0 and spec.init is not None else 1.0
    patch = facts.latent.patch
    return table(
        stage_schedule(stage, facts),
        stage.steps or spec.num_inference_steps,
        tokens=canvas.frames * (canvas.height // patch) * (canvas.width // patch),
        training_tokens=facts.training_tokens,
        shift=stage.shift or spec.shift,
        start=stage.start,
        strength=redrawn,
        spacing=stage.spacing,
    )


def stage_resamplings(index: int, spec: RenderSpec, facts: ModelFacts) -> int:
    """How often its noisy steps are drawn: where a picture is drawn around, the first stage's.

    A network that knows masks fits what it draws by itself, and a step cache reuses steps.
    """
    if index or not spec.inpaints:
        return 1
    around = spec.place is not None and not facts.inpaints and spec.cache is None
    return spec.resamplings or (RESAMPLINGS if around else 1)


# Methods that are nothing at the trained size by what they say of themselves.
UNTOLD = ("none", "auto")


def plan_warnings(
    spec: RenderSpec,
    facts: ModelFacts,
    stages: Sequence[StagePlan],
    by_decoder: bool,
) -> list[str]:
    """Lines of a plan's table; `by_decoder`, whether a decoder makes the size asked for."""
    told = [
        *_of_size(spec, facts, by_decoder),
        *_of_init(spec, stages),
        *_of_tiles(spec, facts, stages),
    ]
    return [f"warning   {line}" for line in told]


def _of_size(spec: RenderSpec, facts: ModelFacts, by_decoder: bool) -> list[str]:
    """That a method was asked for a size which the model knows."""
    size = facts.training_size
    is_known = max(spec.height, spec.width) <= size or by_decoder
    if not is_known or spec.num_frames > facts.training_frames or spec.method in UNTOLD:
        return []
    return [f"method {spec.method} changes nothing up to the trained {size} px"]


def _of_init(spec: RenderSpec, stages: Sequence[StagePlan]) -> list[str]:
    """That a picture to redraw drowns in noise; with a mask it is there at every step."""
    levels = stages[0].table.levels
    if spec.init is None or spec.inpaints or not levels or levels[0].alpha > 0:
        return []
    return [
        f"strength {spec.strength:g} of {spec.num_inference_steps} steps begins with noise "
        "alone, as in diffusers: init leaves no trace; use a lower strength, or more steps"
    ]


def _of_tiles(spec: RenderSpec, facts: ModelFacts, stages: Sequence[StagePlan]) -> list[str]:
    """That there are none."""
    if spec.strategy == strategies.DEFAULT:
        return []
    drawn = [stage for stage in stages if stage.num_steps]
    if any(strategies.tiling(spec, facts, stage.canvas) for stage in drawn):
        return []
    return [f"strategy {spec.strategy}: what is denoised is no larger than a tile, drawn whole"]


def printed(spec: RenderSpec) -> list[str]:
    """The line of a plan's table that says what its print is."""
    if spec.print is None:
        return []
    sides = (spec.width, spec.height)
    return [f"print     {print_text(spec.print, spec.bleed, spec.dpi, sides)}"]
