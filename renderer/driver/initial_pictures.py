"""What a render starts from, kept in its store, so that a resume needs no other file.

Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..inputs import masks
from ..inputs.colors import Colors
from ..inputs.sources import fitted, transparency
from ..planning.canvas_plan import CanvasPlan
from ..spec.networks import picture_names
from ..store.store import Store
from ..store.upstream import needed_beside


def keep_sources(plan: CanvasPlan, store: Store) -> None:
    """Put what the render starts from into the store, at the sizes at which it is needed.

    What is there whole stays, and what is needed no more is left alone; raises `MediaError` where
    a file is gone that is needed again.
    """
    newest, held = store.last_state(), store.journal.inventory().kept
    if newest is not None and not store.journal.is_sealed:
        return
    needed = {name for name, _ in needed_beside(store.layout, store.num_steps, newest)}
    for name, rows, frames in source_arrays(plan):
        if (name, 0) in held or name not in needed:
            continue
        array = plan.array(name)
        digests: list[dict[int, str]] = []
        for index, frame_CHW in enumerate(frames):
            height = frame_CHW.shape[1]
            for top in range(0, height, rows):
                span = slice(top, min(top + rows, height))
                frame = slice(index, index + 1)
                rows_CTHW = frame_CHW[:, None, span]
                digests.append(store.save_latents(array, 0, span, rows_CTHW, frames=frame))
        store.confirm_kept(name, 0, digests)


def source_arrays(plan: CanvasPlan) -> Iterator[tuple[str, int, Iterator[np.ndarray]]]:
    """(array, rows of a chunk, frames [C, H, W]) of all that is filled before work starts.

    A file is read when its first frame is asked for.
    """

    def rows(index: int) -> int:
        return plan.stages[index].align * plan.facts.latent.downscale

    num_frames = plan.spec.num_frames
    if plan.inpaint is not None:
        for index in range(plan.num_denoised):
            yield f"{index}-init", rows(index), plan.inpaint.frames(*plan.size(index), num_frames)
        if plan.decoder is not None:
            size = (plan.spec.height, plan.spec.width)
            yield plan.given, plan.block[0], plan.inpaint.frames(*size, num_frames)
    elif "init" in plan.sources:
        yield "init", rows(0), fitted(plan.sources["init"], *plan.size(0), num_frames)
    if "upscale" in plan.sources:
        source = plan.sources["upscale"]
        yield "upscale", rows(0), fitted(source, *source.size, num_frames, wanted=colors_of(plan))
    if "alpha" in plan.sources:
        yield "alpha", plan.sources["alpha"].height, transparency(plan.sources["alpha"])
    if "image" in plan.sources:
        source = plan.sources["image"]
        yield "image", source.height, fitted(source, source.height, source.width, 1)
        for index in range(plan.num_denoised):
            yield f"{index}-image", rows(index), fitted(source, *plan.size(index), 1)
    if plan.spec.control:
        for index in range(plan.num_denoised):
            yield f"{index}-control", rows(index), _followed(plan, index)
    if plan.has_regions:
        for index, stage in enumerate(plan.stages[1 : plan.num_denoised], 1):
            size = (stage.canvas.height, stage.canvas.width)
            yield f"{index}-mask", stage.align, masks.nearest_cells(plan.sources["mask"], *size)
    for index, stage in enumerate(plan.stages):
        if stage.edits:
            yield f"{index}-edits", stage.align, _edited(plan, index)


def colors_of(plan: CanvasPlan) -> Colors:
    """In which a picture that is made larger is taken: a model redraws it in sRGB."""
    return "srgb" if plan.spec.redraws else "own"


def _followed(plan: CanvasPlan, stage_index: int) -> Iterator[np.ndarray]:
    """The pictures that ControlNets follow at a stage's size, their colours one after the other."""
    names, size = picture_names(plan.spec), plan.size(stage_index)
    pictures = (next(iter(fitted(plan.sources[name], *size, 1))) for name in names)
    yield np.concatenate(list(pictures))


def _edited(plan: CanvasPlan, stage_index: int) -> Iterator[np.ndarray]:
    """The mask of each edit of a stage, one value for each latent cell."""
    stage = plan.stages[stage_index]
    for index in range(len(stage.edits)):
        source = plan.sources[f"edit-{index}"]
        yield masks.cells(source, stage.canvas.height, stage.canvas.width)


def first_frame(plan: CanvasPlan, begun: Store | None) -> np.ndarray:
    """The frame to animate at its own size, [H, W, 3] in [0, 1]: what the encoder of it sees."""
    source = plan.sources["image"]
    if begun is None or not _is_kept(begun):
        frame_CHW = next(iter(fitted(source, source.height, source.width, 1)))
    else:
        frame_CHW = begun.load_latents(plan.array("image"), 0, slice(0, source.height))[:, 0]
    return np.ascontiguousarray(frame_CHW.transpose(1, 2, 0) / 2 + 0.5)


def _is_kept(store: Store) -> bool:
    """Whether the frame to animate is whole in the store."""
    if store.journal.is_sealed:
        return ("image", 0) in store.journal.inventory().kept
    return store.last_state() is not None
