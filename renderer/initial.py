"""What a render starts from, kept in its store, so that a resume needs no other file.

Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .plan import CanvasPlan
from .sources import Source, fitted
from .store import Store


def keep_sources(made: CanvasPlan, store: Store) -> None:
    """Put what the render starts from into the store, at the sizes at which it is needed."""
    for name, source, stage_index, frames in source_arrays(made):
        height, width = made.size(stage_index)
        array = made.array(name)
        rows = made.stages[stage_index].align * made.facts.latent.downscale
        for index, frame_CHW in enumerate(fitted(source, height, width, frames)):
            for top in range(0, height, rows):
                span = slice(top, min(top + rows, height))
                store.save_latents(
                    array, 0, span, frame_CHW[:, None, span], frames=slice(index, index + 1)
                )


def source_arrays(made: CanvasPlan) -> Iterator[tuple[str, Source, int, int]]:
    """(array, source, stage, frames) of every array that is filled before the work starts."""
    if "init" in made.sources:
        yield "init", made.sources["init"], 0, made.spec.num_frames
    if "image" in made.sources:
        for index in range(len(made.stages)):
            yield f"{index}-image", made.sources["image"], index, 1


def first_frame(made: CanvasPlan, begun: Store | None) -> np.ndarray:
    """The frame to animate at the clip's size, [H, W, 3] in [0, 1]."""
    last = len(made.stages) - 1
    height, width = made.size(last)
    if begun is None or not begun.last_state():
        frame_CHW = next(iter(fitted(made.sources["image"], height, width, 1)))
    else:
        frame_CHW = begun.load_latents(made.array(f"{last}-image"), 0, slice(0, height))[:, 0]
    return np.ascontiguousarray(frame_CHW.transpose(1, 2, 0) / 2 + 0.5)
