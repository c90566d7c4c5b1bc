"""spec + model facts + method -> CanvasPlan: bands, blocks, noise levels, bytes.

What cannot be drawn is refused here, before any work, with what would work instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from frieze.cluster.layout import Mesh, cut

from .. import plugins
from ..checkpoints import lora
from ..checkpoints.checkpoint import describe
from ..checkpoints.decoder import PIXELS_A_TOKEN, DecoderFacts
from ..checkpoints.facts import ModelFacts
from ..checkpoints.scheduler_config import other_schedule
from ..errors import PlanError
from ..extrapolation.cascade import redrawing
from ..extrapolation.guides import HELD_BY, held_by
from ..extrapolation.method import Method
from ..inputs import inpaint_canvas, masks
from ..inputs.sources import Source, look, with_alpha
from ..models import strategies
from ..models.family import Guidance
from ..spec.attend import attend_schedule
from ..spec.networks import all_loras, picture_names
from ..spec.render_spec import RenderSpec
from ..watermarks import check as check_watermark
from . import decoder_plan, devices, memory_check
from .canvas_plan import CanvasPlan
from .checks.bands import TooManyWorkersError, check_bands, check_block, check_guide
from .checks.method import (
    check_attention,
    check_cache,
    check_control,
    check_edits,
    check_mask,
    check_method,
    check_tiles,
    check_wrap,
)
from .checks.model import check_experts, check_model, check_sides, check_stage_loras, check_variant
from .guidance_scales import check_guidance, check_stage_guidance, guidance_scales
from .stage_plan import (
    Grid,
    StagePlan,
    block_size,
    stage_bands,
    stage_canvas,
    stage_grid,
    stage_levels,
    stage_loras,
    stage_resamplings,
    stage_scales,
    stage_schedule,
)


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
    try:
        plan = _made(spec, block, sources, detected)
    except TooManyWorkersError as error:
        most = _enough(spec, error.most, lambda fewer: _made(fewer, block, sources, detected))
        raise TooManyWorkersError(error.reason, most, error.instead) from None
    if (largest := _most(spec)) is not None:
        _made(largest, plan.block[0], plan.sources, detected)
    memory_check.check(plan, lambda changed: _made(changed, block, plan.sources, detected))
    return plan


def _enough(spec: RenderSpec, most: int, attempt: Callable[[RenderSpec], CanvasPlan]) -> int:
    """Of at most so many workers those that every stage has rows for, in whole groups."""
    group = spec.guidance_ranks * spec.ulysses
    while True:
        most = max(1, most // group * group)
        try:
            attempt(spec.model_copy(update={"workers": most, "max_workers": None}))
        except TooManyWorkersError as error:
            if error.most < most:
                most = error.most
                continue
        except PlanError:
            pass  # what else is wrong is told when this is mended
        return most


def _most(spec: RenderSpec) -> RenderSpec | None:
    """The render on as many workers as it may come to have, which must do too."""
    if spec.max_workers is None:
        return None
    unit = spec.guidance_ranks * spec.ulysses
    workers = max(spec.workers, spec.max_workers // unit * unit)
    return spec.model_copy(update={"workers": workers, "max_workers": None})


def _made(
    spec: RenderSpec,
    block: int | None,
    sources: Mapping[str, Source] | None,
    detected: Sequence[int] | None,
) -> CanvasPlan:
    """The plan of a spec, whatever memory it needs."""
    facts = describe(spec.model, spec.revision, spec.variant)
    decoder = decoder_plan.described(spec, facts)
    decoder_plan.check_given(spec)
    if decoder is not None and not spec.denoises:
        return _upscaled(spec, facts, decoder, block, sources)
    schedule = other_schedule(facts.schedule, spec.scheduler, spec.scheduler_options)
    facts = replace(facts, schedule=schedule)
    asked, given = spec, _given(spec, sources)
    spec = decoder_plan.drawn(spec, facts, given.size) if given else decoder_plan.drawn(spec, facts)
    if given is not None:
        decoder_plan.check_redraw(asked, given, facts)
        spec = spec.model_copy(update={"stages": redrawing(spec, given.size, facts)})
    method = _settled(load_method(spec, facts), detected)
    if given is not None:
        method = replace(method, guide=held_by(spec.guide or HELD_BY, spec.creativity or 0.0))
    check_method(spec, facts, method)
    method = _tiled(_attending(method, spec, facts), spec, facts)
    check_wrap(asked, facts, method)
    if method.solver == "euler" and spec.scheduler is None:
        facts = replace(facts, schedule=facts.schedule.by_euler())
    grids = [stage_grid(index, method, spec, facts) for index in range(len(method.stages))]
    unit = grids[-1].unit
    check_sides(unit, spec, facts)
    check_model(spec, facts)
    check_variant(spec, facts)
    check_watermark(spec)
    check_stage_loras(spec)
    lora.check(all_loras(spec), facts)
    check_control(spec, facts, method)
    check_guidance(spec, facts)
    check_experts(spec, facts)
    guidance = guidance_scales(spec, facts)
    mesh = _mesh(spec, guidance)
    least = unit
    if decoder is not None:
        decoder_plan.check(asked, spec, unit)
        least = PIXELS_A_TOKEN
    size = block or asked.chunk or block_size(asked, least)
    check_block(size, asked, least)
    check_edits(spec, len(method.stages))
    found = _sources(asked, facts, method, given) if sources is None else sources
    stages = tuple(
        _stage(index, grid, method, spec, facts, mesh, None if decoder else size)
        for index, grid in enumerate(grids)
    )
    guided = stages if given else stages[1:]
    check_guide(method, stages, guided, facts.latent.patch, animates="image" in found)
    check_cache(spec, facts, method, [stage.num_steps for stage in stages])
    check_bands(spec, facts, method, stages)
    if decoder is not None:
        stages += decoder_plan.enlarging((spec.height, spec.width), asked, facts, decoder, mesh)
        decoder_plan.check_wrap(asked, decoder, len(stages) - len(grids))
    return CanvasPlan(
        spec=asked,
        facts=facts,
        method=method,
        guidance=guidance,
        stages=stages,
        mesh=mesh,
        block=(size, asked.width if asked.num_frames > 1 else min(size, asked.width)),
        sources=found,
        detected=None if detected is None else tuple(detected),
        decoder=decoder,
        decoded=decoder_plan.rows(asked, size) if decoder else (),
    )


def _upscaled(
    spec: RenderSpec,
    facts: ModelFacts,
    decoder: DecoderFacts,
    block: int | None,
    sources: Mapping[str, Source] | None,
) -> CanvasPlan:
    """The plan of what no stage draws: a picture that is handed in is enlarged."""
    decoder_plan.check_upscale(spec)
    check_variant(spec, facts)
    found = sources or with_alpha(look(str(spec.upscale), "upscale", num_frames=spec.num_frames))
    decoder_plan.check_enlargement(spec, found["upscale"], facts)
    size = block or spec.chunk or block_size(spec, PIXELS_A_TOKEN)
    check_block(size, spec, PIXELS_A_TOKEN)
    mesh = _mesh(spec, Guidance())
    return CanvasPlan(
        spec=spec,
        facts=facts,
        method=Method(stages=()),
        guidance=Guidance(),
        stages=(
            decoder_plan.encoding(found["upscale"].size, spec, facts, mesh),
            *decoder_plan.enlarging(found["upscale"].size, spec, facts, decoder, mesh),
        ),
        mesh=mesh,
        block=(size, spec.width if spec.num_frames > 1 else min(size, spec.width)),
        sources=found,
        decoder=decoder,
        decoded=decoder_plan.rows(spec, size),
    )


def _settled(method: Method, detected: Sequence[int] | None) -> Method:
    """The method with what was detected, where it wishes for that."""
    if detected is None or method.detection is None:
        return method
    return method.detection.settled(detected)


def _attending(method: Method, spec: RenderSpec, facts: ModelFacts) -> Method:
    """The method, its attention as the spec says, or as its stages do.

    What the spec says is of every stage that draws over something, or of the only one.
    """
    own = [
        spec.attend if index or spec.redraws or len(method.stages) == 1 else None
        for index in range(len(method.stages))
    ]
    texts = [stage.attend or text for stage, text in zip(method.stages, own, strict=True)]
    if not any(texts):
        return method
    schedules = [attend_schedule(text) if text else None for text in texts]
    for kind in dict.fromkeys(each.kind for schedule in schedules for each in schedule or ()):
        check_attention(kind, spec, facts, method)
    from ..extrapolation.windows import attending

    return attending(method, schedules, facts)


def _tiled(method: Method, spec: RenderSpec, facts: ModelFacts) -> Method:
    """The method, where a stage is drawn in tiles: their attention ends at their edges.

    What heads concentrate by is measured on whole canvases, so that no head is concentrated.
    """
    canvases = [
        stage_canvas(stage, spec, facts.latent, facts.latent.unit) for stage in method.stages
    ]
    strategies.check(spec, facts, canvases[-1])
    if not any(strategies.tiling(spec, facts, canvas) for canvas in canvases):
        return method
    check_tiles(spec, method)
    focus, note = method.focus, method.note
    if focus is not None and focus.scale is not None:
        focus, note = None, f"{len(method.stages)} stages; no head is concentrated in tiles"
    return replace(method, windows=None, focus=focus, note=note)


def _given(spec: RenderSpec, sources: Mapping[str, Source] | None) -> Source | None:
    """The picture or clip that is redrawn larger, if one is."""
    if not spec.redraws:
        return None
    if sources is not None:
        return sources["upscale"]
    return look(str(spec.upscale), "upscale", num_frames=spec.num_frames)


def _sources(
    spec: RenderSpec, facts: ModelFacts, method: Method, given: Source | None
) -> dict[str, Source]:
    """The picture or clip to redraw, the frame to animate, masks of a guide and of edits."""
    check_mask(spec, method)
    if facts.takes_image and not facts.image_optional and spec.image is None:
        raise PlanError(f"{facts.pipeline} animates a first frame; give it with image")
    if spec.image is not None and not facts.takes_image:
        raise PlanError(
            f"image {spec.image!r}: {facts.pipeline} starts from no frame; init redraws a picture"
        )
    found = {} if given is None else with_alpha(given)
    if spec.init is not None:
        found["init"] = look(spec.init, "init", num_frames=spec.num_frames)
    if spec.image is not None:
        found["image"] = look(spec.image, "image", num_frames=1)
    for name, path in zip(picture_names(spec), spec.control, strict=True):
        found[name] = look(path, "control", num_frames=1)
    if spec.mask is not None:
        most = 1 if spec.init is None else spec.num_frames
        found["mask"] = mask = look(spec.mask, "mask", num_frames=most)
        if spec.init is None:
            masks.check_shape(mask, "mask", spec.height, spec.width)
    inpaint_canvas.check(spec, found, facts.pipeline if facts.inpaints else None)
    for index, edit in enumerate(spec.edit):
        found[f"edit-{index}"] = mask = look(edit.mask, "edit", num_frames=1)
        masks.check_shape(mask, "edit", spec.height, spec.width)
    strategies.check_covered(spec, facts, found)
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


def _stage(
    index: int,
    grid: Grid,
    method: Method,
    spec: RenderSpec,
    facts: ModelFacts,
    mesh: Mesh,
    block: int | None,
) -> StagePlan:
    """`block` is None where the picture's blocks are not the last stage's."""
    stage, last = method.stages[index], index + 1 == len(method.stages)
    latent = facts.latent
    if last and stage.scale != 1.0:
        raise PlanError(f"the last stage has scale {stage.scale}; the picture itself is scale 1")
    canvas = grid.canvas
    height, patch = canvas.height, grid.unit // latent.downscale
    # Rows that are saved together: the picture's blocks at the end, at most 64 files before.
    align = patch * max(1, height // (64 * patch))
    if last and block is not None:
        align = block // latent.downscale
    if (rows := max(1, height // align)) < spec.workers:
        raise TooManyWorkersError(
            f"a stage of {height * latent.downscale} rows: it cannot be cut into {spec.workers} "
            f"bands of at least {align * latent.downscale} rows",
            rows,
        )
    shares = cut(height, spec.workers, align=align)
    bands = stage_bands(shares, mesh)
    levels = grid.levels or stage_levels(index, stage, spec, facts, canvas)
    own = stage_scales(stage)
    check_stage_guidance(own, spec, facts)
    drawn = (canvas, bands, shares, align, levels, stage.start, stage.enlarge)
    return StagePlan(
        *drawn,
        prompt=spec.prompt if stage.prompt is None else stage.prompt,
        guidance=guidance_scales(spec, facts, own),
        schedule=stage_schedule(stage, facts),
        loras=stage_loras(stage, spec),
        resamplings=stage_resamplings(index, spec, facts),
        edits=spec.edit if index + 1 >= spec.edit_stage else (),
    )


def load_method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """The `Method` of the file named `spec.method`."""
    method = plugins.load("methods", spec.method).method(spec, facts)
    assert isinstance(method, Method)
    return method
