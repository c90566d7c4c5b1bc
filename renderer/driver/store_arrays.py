"""The arrays of the store that a plan needs."""

from __future__ import annotations

from ..inputs.inpaint_canvas import CHANNELS
from ..planning.canvas_plan import CanvasPlan
from ..planning.stage_plan import num_cached
from ..sampling.solvers import solver
from ..store.layout import LatentArray, StoreLayout
from .state_slots import NUM_SLOTS


def store_layout(plan: CanvasPlan) -> StoreLayout:
    """The store's arrays for a plan: pixels in blocks, and the saved states of every stage."""
    spec = plan.spec
    return StoreLayout(
        height=spec.height,
        width=spec.width,
        dtype="uint8" if spec.bits == 8 else "uint16",
        block=plan.block,
        frames=plan.frames,
        fps=spec.fps if plan.frames else None,
        latents=tuple(_array(plan, name) for name in plan.arrays),
    )


def _array(plan: CanvasPlan, name: str) -> LatentArray:
    """One of the plan's arrays: a stage's latents, its picture, what guides or starts it."""
    number, _, kind = name.partition("-")
    if not kind and number.isdigit():
        return _latents(plan, int(number))
    if kind in ("guide", "clean"):
        return _kept(plan, name, int(number))
    if kind in ("mask", "edits"):
        stage = plan.stages[int(number)]
        num_masks = len(stage.edits) if kind == "edits" else 1
        shape = (1, 1, num_masks, stage.canvas.height, stage.canvas.width)
        return LatentArray(name, shape, chunk_rows=stage.align, chunk_frames=1)
    if name == "image":
        source = plan.sources[name]
        return LatentArray(name, (1, 3, 1, source.height, source.width), source.height)
    if name == "alpha":
        source = plan.sources[name]
        return LatentArray(name, (1, 1, 1, source.height, source.width), source.height)
    if name == "given":
        shape = (1, CHANNELS, plan.spec.num_frames, plan.spec.height, plan.spec.width)
        return LatentArray(name, shape, chunk_rows=plan.block[0], chunk_frames=1)
    stage_index = int(number) if number.isdigit() else 0
    size = plan.size(stage_index)
    if kind == "picture" and plan.enlarges(stage_index + 1):
        stage_index += 1
        size = plan.size(stage_index)
    if name == "upscale":
        size = plan.sources[name].size
    rows = plan.stages[stage_index].align * plan.facts.latent.downscale
    frames = 1 if kind in ("image", "control") else plan.spec.num_frames
    channels = CHANNELS if kind == "init" else 3
    if kind == "control":
        channels *= len(plan.spec.control)
    shape = (1, channels, frames, *size)
    return LatentArray(name, shape, chunk_rows=rows, chunk_frames=1)


def _latents(plan: CanvasPlan, index: int) -> LatentArray:
    """Slots of a stage's latents and of what steps remember: one is whole at any time."""
    stage = plan.stages[index]
    canvas = stage.canvas
    guide = plan.method.guide if plan.is_guided(index) else None
    num_memory = solver(stage.schedule).num_history + (guide.num_memory if guide else 0)
    num_memory += num_cached(plan.spec, stage)
    channels = plan.facts.latent.channels * (1 + num_memory)
    shape = (NUM_SLOTS, channels, canvas.frames, canvas.height, canvas.width)
    return LatentArray(name=str(index), shape=shape, chunk_rows=stage.align)


def _kept(plan: CanvasPlan, name: str, index: int) -> LatentArray:
    """Latents that guide a stage, or x0 of each of its steps, which guides the next one."""
    stage, canvas = plan.stages[index], plan.stages[index].canvas
    num_slots = 1 if name.endswith("guide") else stage.num_steps
    channels = plan.facts.latent.channels
    shape = (num_slots, channels, canvas.frames, canvas.height, canvas.width)
    return LatentArray(name, shape, chunk_rows=stage.align)
