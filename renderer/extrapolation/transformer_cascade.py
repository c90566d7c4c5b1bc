"""A cascade of a transformer as CineScale releases it (arXiv 2508.15774), of its parts.

Released for Wan 2.1: stages restart from the one before, enlarged, noised anew at step int(0.3 N)
of N even ones and taken by Euler to the end, under a timestep shift that grows with them.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ..checkpoints.facts import ModelFacts
from ..errors import PlanError
from ..models.positions import PositionPolicy, squeeze, trained
from ..sampling.timestep_shift import alpha_for
from ..spec.render_spec import RenderSpec
from ..spec.stage_spec import Enlargement
from .cascade import first_enlarged, from_known, is_beyond, restarted, stages_of, token_length
from .concentration import by_tokens, stepped
from .frequencies import by_length
from .guides import Detail
from .key_positions import known_grid, rectified
from .method import Focus, Method, Stage
from .method_options import AtLeastOne, Jitter, MethodOptions, Part, Positive, Several, Switch

if TYPE_CHECKING:
    from .method import WindowPolicy


Fusion = Literal["hwc", "hw", "wc", "none"]


class TransformerOptions(MethodOptions):
    """Of the cascade, detail and fusion; then what only transformers have a use for."""

    restart: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="part of the steps that a later stage leaves out; default: 0.3, Turbo 0.5",
    )
    detail: Positive | None = Field(
        default=None,
        description="detail factor: how soon the enlarged picture lets go; 1 to 2, at 8192 up to 1;"
        " default: 2 with U-Nets, with others it lets go at once unless there is a mask",
    )
    inside: Positive = Field(
        default=3.0, description="the same where --mask is not black, if there is one"
    )
    outside: Positive = Field(default=0.5, description="the same where --mask is black")
    fusion: Fusion | None = Field(
        default=None,
        description="what the Gaussian between windows and canvas runs over: as released, as the "
        "paper writes it, as released at first; or the canvas alone; default: hwc with U-Nets, "
        "else none, where hw works too but draws a grid of dots",
    )
    fast: Switch = Field(
        default=False, description="let interleaved grids of the trained size stand for the canvas"
    )
    jitter: Jitter = Field(
        default="separable",
        description="how windows move: rows and columns of them together, each for itself, not",
    )
    first: Part | None = Field(
        default=None,
        description="the first stage's sides as a part of the picture's; default: the trained area",
    )
    enlarge: Literal["pixels", "latents"] | None = Field(
        default=None,
        description="where a stage is enlarged; default: pictures in pixels, clips in latents",
    )
    positions: Literal["ntk", "rectified"] = Field(
        default="ntk",
        description="the rotary base grown, or keys drawn in towards each tile of queries",
    )
    frame_factor: AtLeastOne = Field(
        default=1.0, description="of the base of frames, where there are more than trained"
    )
    row_factor: Several[AtLeastOne] = Field(
        default=(20.0, 25.0),
        description="of the base of rows: at the first size past the trained one, at the next, ...",
    )
    column_factor: Several[AtLeastOne] = Field(
        default=(20.0, 25.0), description="the same of columns"
    )
    attention: Literal["released", "tokens", "none"] | None = Field(
        default=None,
        description="what logits are scaled by: stepped at 10,000 and 20,000 tokens of a latent "
        "frame, or ln of them to the base of the trained ones; default: released with ntk",
    )
    ratios: Several[AtLeastOne] = Field(
        default=(1.5, 2.0), description="of tokens, that the released steps stand for"
    )
    shifts: Several[Positive] = Field(
        default=(),
        description="timestep shift of each stage; default: the first one's, growing by 4/7",
    )
    sampler: Literal["released", "checkpoint"] = Field(
        default="released", description="Euler with even steps, or as the checkpoint has it"
    )
    tile: Part = Field(
        default=0.4, description="of rectified: a tile's sides as a part of the trained grid's"
    )
    keep: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.2, description="of rectified: how near keys stay in place, as such a part"
    )

    @property
    def hold(self) -> Detail:
        """The detail factor's."""
        return Detail(2.0 if self.detail is None else self.detail, self.inside, self.outside)

    def windows(self, axes: Fusion, *, first: int, zeros: bool = True) -> WindowPolicy | None:
        """Every self-attention of the stages from `first` on in fusion."""
        from .windows import fusing

        if axes == "none":
            return None
        return fusing(axes, fast=self.fast, jitter=self.jitter, zeros=zeros, first=first)


# Options that only rotary networks have a use for, and those that only transformers have.
OF_POSITIONS = {"positions", "frame_factor", "row_factor", "column_factor", "tile", "keep"}
OF_TRANSFORMERS = OF_POSITIONS | {"first", "enlarge", "attention", "ratios", "shifts", "sampler"}


def transformer_cascade(spec: RenderSpec, facts: ModelFacts, options: TransformerOptions) -> Method:
    """The cascade of a spec; the plain model up to the trained area.

    Raises `PlanError` for options that the network has no use for, or that do not go together.
    """
    _check(spec, facts, options)
    guide = options.hold if options.detail is not None or spec.mask is not None else None
    if not is_beyond(spec, facts):
        note = "the plain model, no larger than trained"
        return Method(stages=stages_of(spec, (Stage(),)), guide=guide, note=note)
    stages, released = _stages(spec, facts, options), options.sampler == "released"
    is_ntk = options.positions == "ntk"
    factors = _factors(spec, facts, options, stages)
    known = known_grid(spec, facts)
    return Method(
        stages=stages,
        positions=factors if facts.rotary and is_ntk else trained,
        absolute=None if facts.rotary else squeeze,
        key_positions=None if is_ntk else rectified(known, options.tile, options.keep),
        focus=_focus(facts, options),
        windows=options.windows(options.fusion or "none", first=first_enlarged(spec), zeros=False),
        guide=guide,
        solver="euler" if released and facts.schedule.flow else "checkpoint",
        note=_note(stages, facts, options),
    )


def _check(spec: RenderSpec, facts: ModelFacts, options: TransformerOptions) -> None:
    if not facts.rotary:
        refuse(OF_POSITIONS, options, f"rotary positions, and {facts.family} has none")
    if options.fusion not in (None, "none", "hw"):
        raise PlanError(
            f"option fusion of {spec.method} = {options.fusion}: it is for U-Nets, and "
            f"{facts.family} has none; hw or none works"
        )
    if options.positions == "rectified":
        if options.fusion == "hw":
            raise PlanError(
                "option fusion = hw asks windows, whose keys are not rectified; use none"
            )
        if spec.edit:
            raise PlanError(
                "option positions = rectified with an edit: use positions=ntk, or no edit"
            )


def refuse(names: Set[str], options: MethodOptions, whose: str) -> None:
    """Raises `PlanError` if one of these options is given."""
    for name in sorted(names & options.model_fields_set):
        raise PlanError(f"option {name} is for {whose}; leave it out")


def _stages(spec: RenderSpec, facts: ModelFacts, options: TransformerOptions) -> tuple[Stage, ...]:
    """The cascade as released, of even steps; what is redrawn takes the first stage's place."""
    scales = from_known(spec, facts, options.first)
    if spec.is_laid_out:
        scales = scales[1:] or scales
    restart = 0.3 if options.restart is None else options.restart
    shifts = _shifts(spec, facts, options, scales) if facts.schedule.flow else None
    enlarge = options.enlarge or ("latents" if facts.video else "pixels")
    even = options.sampler == "released" and facts.schedule.flow
    made = stages_of(spec, restarted(scales, spec.num_inference_steps, restart, shifts))
    if spec.stages is None:
        space: Enlargement = "latents_linear" if enlarge == "latents" else "pixels"
        made = tuple(replace(stage, enlarge=space) for stage in made)
    return tuple(replace(s, spacing="even" if even else "checkpoint") for s in made)


def _shifts(
    spec: RenderSpec, facts: ModelFacts, options: TransformerOptions, scales: Sequence[float]
) -> list[float]:
    """The timestep shift of every stage: stated, or the first one's and 4/7 for each side more."""
    if given := options.shifts:
        return [given[min(index, len(given) - 1)] for index in range(len(scales))]
    steps = spec.num_inference_steps
    tokens = facts.latent.frames(spec.num_frames)
    for side in (spec.height, spec.width):
        tokens *= token_length(side, scales[0], facts)
    shift = spec.shift or alpha_for(facts.schedule, tokens, facts.training_tokens, steps)
    return [shift * (3 + 4 * scale / scales[0]) / 7 for scale in scales]


def _factors(
    spec: RenderSpec, facts: ModelFacts, options: TransformerOptions, stages: Sequence[Stage]
) -> PositionPolicy:
    """What bases are multiplied by: by size, on both axes of every canvas that is too large."""
    scales = sorted({stage.scale for stage in stages if is_beyond(spec, facts, stage.scale)})
    given = {"row": options.row_factor or (1.0,), "column": options.column_factor or (1.0,)}
    sides = {"row": spec.height, "column": spec.width}
    factors = {
        (name, token_length(sides[name], scale, facts)): each[min(index, len(each) - 1)]
        for name, each in given.items()
        for index, scale in enumerate(scales)
    }
    last = {name: each[-1] for name, each in given.items()}
    return by_length(factors, {**last, "frame": options.frame_factor})


def _focus(facts: ModelFacts, options: TransformerOptions) -> Focus | None:
    """Logits scaled by the tokens of a latent frame."""
    form = options.attention or ("released" if options.positions == "ntk" else "none")
    if form == "none":
        return None
    if form == "released":
        return Focus(of_frame=partial(stepped, ratios=options.ratios))
    known = max(2, (facts.training_size // facts.latent.unit) ** 2)
    return Focus(of_frame=partial(by_tokens, known=known))


def _note(stages: Sequence[Stage], facts: ModelFacts, options: TransformerOptions) -> str:
    staged = f"{len(stages)} stages" if len(stages) > 1 else "one stage"
    if not facts.rotary:
        return f"{staged}, positions interpolated, for {facts.family} rotates none"
    ways = {"ntk": "the rotary base grown", "rectified": "keys drawn in by tiles of queries"}
    return f"{staged}, {ways[options.positions]}"
