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
    for name, source, (height, width), rows, frames in source_arrays(made):
        array = made.array(name)
        for index, frame_CHW in enumerate(fitted(source, height, width, frames)):
            for top in range(0, height, rows):
                span = slice(top, min(top + rows, height))
                store.save_latents(
                    array, 0, span, frame_CHW[:, None, span], frames=slice(index, index + 1)
                )


def source_arrays(made: CanvasPlan) -> Iterator[tuple[str, Source, tuple[int, int], int, int]]:
    """(array, source, size, rows of a chunk, frames) of all that is filled before work starts."""

    def rows(index: int) -> int:
        return made.stages[index].align * made.facts.latent.downscale

    if "init" in made.sources:
        yield "init", made.sources["init"], made.size(0), rows(0), made.spec.num_frames
    if "image" in made.sources:
        source = made.sources["image"]
        yield "image", source, (source.height, source.width), source.height, 1
        for index in range(len(made.stages)):
            yield f"{index}-image", source, made.size(index), rows(index), 1


def first_frame(made: CanvasPlan, begun: Store | None) -> np.ndarray:
    """The frame to animate at its own size, [H, W, 3] in [0, 1]: what the encoder of it sees."""
    source = made.sources["image"]
    if begun is None or not begun.last_state():
        frame_CHW = next(iter(fitted(source, source.height, source.width, 1)))
    else:
        frame_CHW = begun.load_latents(made.array("image"), 0, slice(0, source.height))[:, 0]
    return np.ascontiguousarray(frame_CHW.transpose(1, 2, 0) / 2 + 0.5)
