"""What is asked for and cannot be drawn: refused before any work, with what would work instead.

All raise `PlanError`, or `ModelError` for what the model's folder lacks.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoints import controlnet, lora
from ..checkpoints.facts import ModelFacts
from ..errors import ModelError, PlanError
from ..extrapolation.guides import Detail, Flow, Resolution, View
from ..extrapolation.method import Convolutions, Method, StepContext
from ..models.positions import trained
from ..spec.attend import KINDS, Attend
from ..spec.render_spec import RenderSpec
from ..spec.stage_loras import all_loras, has_stage_loras, loras_of_all
from ..spec.step_cache import step_cache

if TYPE_CHECKING:
    from frieze.cluster.bands import ConvShape

    from .stage_plan import StagePlan


def check_model(spec: RenderSpec, facts: ModelFacts) -> None:
    """Frames and prompts are such as the model can be given."""
    check_frames(spec, facts)
    length, most = spec.max_sequence_length, facts.max_sequence_length
    if length is not None and facts.fixed_sequence_length:
        raise PlanError(
            f"max_sequence_length {length}: the encoders of {facts.family} read {most} tokens, "
            "no more and no fewer; leave it out"
        )
    if length is not None and length > max(most, 512):
        raise PlanError(
            f"max_sequence_length {length} is more than {facts.family} reads; use {most}"
        )


def check_sides(unit: int, spec: RenderSpec, facts: ModelFacts) -> None:
    """The picture's sides are multiples of `unit` pixels, the method's where not the model's."""
    whose = facts.family
    if unit != facts.latent.unit:
        whose = f"method {spec.method!r} with {facts.family} at this size"
    for name, value in (("height", spec.height), ("width", spec.width)):
        if value % unit:
            near = max(unit, round(value / unit) * unit)
            raise PlanError(
                f"{name} {value} is no multiple of {unit}, which {whose} needs; "
                f"the nearest that works is {near}"
            )


def check_variant(spec: RenderSpec, facts: ModelFacts) -> None:
    """The weights are there as the variant asked for, or without one as plain files."""
    model = Path(facts.folder)
    if spec.variant is not None:
        if not any(model.rglob(f"*.{spec.variant}[.-]*safetensors")):
            raise ModelError(
                f"{model} holds no {spec.variant!r} weights; drop --variant, or fetch them"
            )
        return
    for component in facts.cost.weight_bytes:
        found = [_VARIANT.search(file.name) for file in (model / component).glob("*.safetensors")]
        variants = sorted({each[1] for each in found if each})
        if variants and all(found):
            raise ModelError(
                f"{model / component} holds {' and '.join(variants)} weights only; use --variant "
                f"{variants[0]}, and --dtype for what to compute in"
            )


# MODEL.fp16.safetensors, MODEL.fp16-00001-of-00002.safetensors: how diffusers names variants.
_VARIANT = re.compile(r"\.([A-Za-z0-9_]+)(?:-\d{5}-of-\d{5})?\.safetensors$")


def check_frames(spec: RenderSpec, facts: ModelFacts) -> None:
    """The model draws a clip, and one of so many frames."""
    frames, temporal = spec.num_frames, facts.latent.temporal
    if frames > 1 and not facts.video:
        raise PlanError(f"num_frames {frames}: {facts.family} draws pictures; leave it at 1")
    if (frames - 1) % temporal:
        near = max(1, round((frames - 1) / temporal) * temporal + 1)
        raise PlanError(
            f"num_frames {frames} is not 1 more than a multiple of {temporal}, which "
            f"{facts.family} needs; the nearest that works is {near}"
        )


def check_method(spec: RenderSpec, facts: ModelFacts, method: Method) -> None:
    """A method that moves or weighs rotary positions does nothing where there are none."""
    if facts.rotary:
        return
    focus = method.focus
    measures = focus is not None and (focus.scale is not None or focus.constant is not None)
    weighs = method.gains is not None or measures
    if weighs or (method.positions is not trained and method.absolute is None):
        raise PlanError(
            f"method {spec.method!r} is for rotary positions, and {facts.family} has none; "
            "none, auto, pi, imax, hiflow and cinescale work with it, with a U-Net hidiffusion too"
        )


def check_attention(kind: Attend, spec: RenderSpec, facts: ModelFacts, method: Method) -> None:
    """Refuses what would draw something else than it says."""
    if kind == "full":
        return
    others = ", ".join(each for each in KINDS if each != "pooled")
    if method.decay is not None:
        raise PlanError(
            f"attend {kind}: method {spec.method!r} lets logits fade along the whole clip; use full"
        )
    if method.key_positions is not None:
        raise PlanError(
            f"attend {kind}: method {spec.method!r} counts the positions of keys for each tile of "
            "the canvas; use full"
        )
    if kind != "pooled":
        return
    if facts.attentions:
        raise PlanError(
            f"attend pooled: a U-Net ({facts.family}) has no positions, which pooling follows; use "
            f"{others}, or method hidiffusion or cinescale"
        )
    if not facts.rotary:
        raise PlanError(
            f"attend pooled: how far to pool follows from rotary positions, and {facts.family} "
            f"has learnt ones; use {others}"
        )
    if method.token_spacing is None:
        raise PlanError(
            f"attend pooled: method {spec.method!r} keeps neighbours as far apart as in training, "
            f"so that the keys of a block would cancel; use method auto or pi, or attend {others}"
        )


def check_tiles(spec: RenderSpec, method: Method) -> None:
    """Refuses what a canvas that is drawn in tiles cannot have: what looks at all of it."""
    whole = {
        "convolutions": method.convolutions is not None,
        "skips": method.skips is not None,
        "gains": method.needs_spectrum,
        "keys": method.key_positions is not None,
    }
    if any(whole.values()):
        raise PlanError(
            f"strategy {spec.strategy!r}: method {spec.method!r} changes the network by the size "
            "of the whole canvas, which tiles do not have; use auto, pi, hiflow, imax or none"
        )
    stages = spec.stages or ()
    asked = [text for text in (spec.attend, *(stage.attend for stage in stages)) if text]
    if asked:
        raise PlanError(
            f"attend {asked[0]}: with strategy {spec.strategy!r} each tile attends to itself; "
            "leave it out, or use strategy 'bands'"
        )
    if spec.ulysses > 1:
        raise PlanError(
            f"ulysses {spec.ulysses}: with strategy {spec.strategy!r} no two workers attend "
            "together; use 1"
        )
    if spec.image is not None:
        raise PlanError(
            f"image {spec.image!r}: strategy {spec.strategy!r} gives tiles no first frame; use "
            "strategy 'bands'"
        )
    if spec.cache:
        raise PlanError(
            f"cache {spec.cache}: with strategy {spec.strategy!r} tiles lie elsewhere at every "
            "step, so that nothing is reused; leave it out"
        )


def check_cache(spec: RenderSpec, facts: ModelFacts, method: Method, stages: list[int]) -> None:
    """Refuses a step cache where there is nothing that it could reuse; `stages` count steps."""
    if spec.cache is None:
        return
    asked, guide, ends = f"cache {spec.cache}", method.guide, step_cache(spec.cache).ends
    if facts.num_blocks < 2:
        what = "a U-Net" if facts.attentions else facts.family
        raise PlanError(
            f"{asked}: {what} ({facts.pipeline}) has no run of blocks behind a first one; it works "
            "with flux, flux2, sd3, qwen, zimage and wan; leave it out"
        )
    if spec.strategy != "bands":
        raise PlanError(f"{asked}: strategy {spec.strategy!r} runs the network in parts; use bands")
    if spec.redraws and spec.num_frames > max(1, facts.training_frames):
        raise PlanError(
            f"{asked}: a clip of more than {facts.training_frames} frames is redrawn in windows of "
            "frames, each of which changes otherwise; leave it out"
        )
    if isinstance(guide, Resolution) and guide.is_on and guide.half_token:
        raise PlanError(
            f"{asked}: method {spec.method!r} moves all tokens by half of one at every other step; "
            "use half_token false, or another method"
        )
    if not any(steps > 2 * ends for steps in stages):
        raise PlanError(
            f"{asked}: of at most {max(stages, default=0)} steps a stage {ends} at each end are "
            "computed anyway; use more steps, or leave it out"
        )


def check_wrap(spec: RenderSpec, facts: ModelFacts, method: Method) -> None:
    """Refuses a canvas without edges to what knows where its edges are."""
    if spec.wrap is None:
        return
    given = [name for name in ("init", "image", "upscale", "control") if getattr(spec, name)]
    whole, why = (method.convolutions, method.key_positions, method.skips), ""
    texts = (spec.attend, *(stage.attend for stage in spec.stages or ()))
    attends = [text for text in texts if text not in (None, "full", "pooled")]
    is_windowed = method.windows is not None and spec.method != "auto" and not any(texts)
    if not facts.rotary and not facts.attentions:
        why = f"{facts.family} has learnt positions; use a model with rotary ones, or a U-Net"
    elif given:
        why = f"{given[0]} {getattr(spec, given[0])!r} ends at its edges; leave it out"
    elif spec.strategy != "bands":
        why = f"strategy {spec.strategy!r} ends at its tiles' edges; use bands"
    elif method.guide is not None:
        why = f"method {spec.method!r} is guided by what ends at its edges; use auto, pi or none"
    elif attends:
        why = f"attend {attends[0]} ends at windows' edges; use full or pooled"
    elif any(part is not None for part in whole) or method.needs_spectrum or is_windowed:
        why = f"method {spec.method!r} looks at parts of the canvas; use auto, pi or none"
    if why:
        raise PlanError(f"wrap {spec.wrap}: {why}")


def check_mask(spec: RenderSpec, method: Method) -> None:
    """A mask without a picture to redraw is for a method that guides its regions differently."""
    if spec.mask is not None and spec.init is None and not isinstance(method.guide, Detail):
        raise PlanError(
            f"mask {spec.mask!r}: method {spec.method!r} treats all regions alike; leave it out, "
            "use cinescale, or give an init to redraw there"
        )


def check_stage_loras(spec: RenderSpec) -> None:
    """Prompts are encoded once for all stages: by encoders that no stage's LoRAs change."""
    if not has_stage_loras(spec):
        return
    for each in all_loras(spec):
        if any(key.startswith(("text_encoder", "lora_te")) for key in lora.shapes(each.path)):
            raise PlanError(
                f"{each.path} changes a text encoder, and prompts are encoded once for all stages, "
                "some of which have another lora; a LoRA without text encoders works"
            )


def check_control(spec: RenderSpec, facts: ModelFacts, method: Method) -> None:
    """A ControlNet of the model's family, and what it goes with."""
    controlnet.check(spec, facts)
    if spec.controlnet is None:
        return
    is_unfit = method.convolutions is not None and method.control is None
    changes = is_unfit or isinstance(method.guide, Resolution | View)
    for name, value in {"method": spec.method if changes else None, "cache": spec.cache}.items():
        if value is not None:
            raise PlanError(f"{name} {value!r} changes which features a controlnet's are added to")
    if spec.strategy != "bands":
        raise PlanError(f"strategy {spec.strategy!r} shows a controlnet no picture; use bands")
    if spec.edit and facts.family == "flux":
        raise PlanError(
            f"edit {spec.edit[0].prompt!r}: a ControlNet of {facts.family} is told one prompt for "
            "the whole canvas; leave one of both out"
        )


def check_experts(spec: RenderSpec, facts: ModelFacts) -> None:
    """What is given for a second expert has one to go to."""
    for name in ("guidance_scale_2", "lora_2"):
        given = loras_of_all(spec, second=True) if name == "lora_2" else getattr(spec, name)
        if given not in (None, ()) and not facts.num_experts > 1:
            shown = f"{given:g}" if isinstance(given, float) else " ".join(map(str, given))
            raise PlanError(
                f"{name} {shown}: {facts.pipeline} here has one expert; use {name[:-2]}"
            )


def check_edits(spec: RenderSpec, num_stages: int) -> None:
    """Edits act in a stage that there is."""
    if spec.edit_stage > num_stages:
        there = f"{num_stages} stages; 1 to {num_stages} work" if num_stages > 1 else "one stage"
        raise PlanError(f"edit_stage {spec.edit_stage}: the render has {there}")


class TooManyWorkersError(PlanError):
    """More workers than something has rows for: why, the `most` that it has, what else would do."""

    def __init__(self, reason: str, most: int, instead: str = "") -> None:
        super().__init__(reason, most, instead)
        self.reason, self.most, self.instead = reason, most, instead

    def __str__(self) -> str:
        workers = "1 worker" if self.most == 1 else f"{self.most} workers"
        return f"{self.reason}; use at most {workers}{self.instead}"


def check_block(size: int, spec: RenderSpec, unit: int) -> None:
    """Blocks of `size` pixels fit units, and there is a row of them for each worker."""
    if size % unit or size & (size - 1):
        raise PlanError(f"chunk {size} does not work; a power of two from {unit} to 512 does")
    rows = spec.height // size
    workers = spec.most_workers
    if workers > rows:
        raise TooManyWorkersError(
            f"{workers} workers are more than the {rows} rows of {size}-pixel blocks in a "
            f"height of {spec.height}",
            rows,
            " or a smaller chunk" if size > unit else "",
        )


def check(
    method: Method,
    stages: Sequence[StagePlan],
    guided: Sequence[StagePlan],
    patch: int,
    *,
    animates: bool,
) -> None:
    """Raises `PlanError` for a guide that these stages, some of which it guides, cannot have.

    `animates`: there is a first frame, whose conditioning lies on the grid of whole tokens.
    """
    guide = method.guide
    if isinstance(guide, Resolution) and guide.is_on and guide.half_token and animates:
        raise PlanError("half_token True: a first frame lies on whole tokens; use false")
    for before, stage in itertools.pairwise(stages):
        if isinstance(guide, View):
            guide.region(before.canvas, stage.canvas, patch)
    for stage in guided:
        most = stage.canvas.width // 2 + 1
        if isinstance(guide, Flow) and len(stage.bands) > most:
            raise PlanError(
                f"{len(stage.bands)} bands are more than the {most} column frequencies of a "
                f"stage of {stage.canvas.width} latent columns; use fewer workers"
            )


def check_bands(
    spec: RenderSpec, facts: ModelFacts, method: Method, stages: Sequence[StagePlan]
) -> None:
    """Every band has as many rows as its neighbours' convolutions read of it."""
    for number, stage in enumerate(stages, 1):
        if method.convolutions is None or len(stage.bands) == 1:
            continue
        needed = max(
            (
                geometry.dilation * _cells_per_row(layer, facts.latent.patch)
                for shape in _shapes(method.convolutions, spec, facts, stage, number - 1)
                for layer, geometry in shape.convs.items()
            ),
            default=0,
        )
        least, downscale = min(band.rows for band in stage.bands), facts.latent.downscale
        if least < needed:
            most = stage.canvas.height // stage.align // -(-needed // stage.align)
            workers = max(1, most) * (len(stage.shares) // len(stage.bands))
            raise TooManyWorkersError(
                f"stage {number}: method {spec.method!r} reads {needed * downscale} rows of a "
                f"neighbour, and the lowest band has {least * downscale}",
                workers,
            )


def _shapes(
    convolutions: Convolutions,
    spec: RenderSpec,
    facts: ModelFacts,
    stage: StagePlan,
    stage_index: int,
) -> Iterator[ConvShape]:
    """What a stage's steps change of the convolutions."""
    for step in range(stage.num_steps):
        context = StepContext.of(
            facts, spec.seed, stage.canvas, stage.levels, stage=stage_index, step=step
        )
        if (shape := convolutions.shape(context)) is not None:
            yield shape


def _cells_per_row(layer: str, patch: int) -> int:
    """Latent cells to a row of the map that a layer of a U-Net reads."""
    level = re.match(r"down_blocks\.(\d+)\.", layer)
    return patch if level is None else int(2 ** int(level[1]))
