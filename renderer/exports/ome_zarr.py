"""OME-Zarr 0.5 to hand over: the picture or clip and its pyramid, without the working state.

Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Set
from itertools import product
from pathlib import Path

import numpy as np

from ..codecs.output import Output
from ..errors import ExportError
from ..files.atomic import check_space
from ..files.location import Location
from ..store.arrays import ZarrArray, create_picture, write_rows
from ..store.directory import StoreFolder
from ..store.follower import Follow
from ..store.layout import StoreLayout, required_bytes
from ..store.store import Store

suffixes = (".zarr",)
last, others = "zarr.json", re.compile(r"\d+")


def check(out: Location, layout: StoreLayout) -> None:
    """Pictures and clips of any size can be written."""


def export(output: Output) -> Path:
    """Write a store as an OME-Zarr 0.5 folder; returns its path.

    Raises `ExportError` or `StoreError`, and leaves nothing then.
    """
    store, layout, follow = output.store, output.layout, output.follow
    with output.folder(last, is_ours) as path:
        part = StoreFolder(path)
        check_space(output.path.absolute(), required_bytes(layout), ExportError)
        about = {**store.provenance, "dpi": output.dpi}
        arrays = create_picture(part, layout, output.path.stem, about)
        for frame, top, rows_HWC in _strips(store, follow):
            write_rows(part / "0", arrays[0], (top, 0), rows_HWC, layout.lead(frame), settle=False)
        store.wait_finished(wait=follow)
        for index in range(1, layout.num_levels):
            _copy_level(store, index, part, arrays[index])
    return output.path


def _strips(store: Store, follow: Follow) -> Iterator[tuple[int, int, np.ndarray]]:
    """(frame, first row, pixels [rows, W, C]) of whole shards, in order; a picture is frame 0."""
    if store.layout.frames is not None:
        yield from ((frame, 0, p_HWC) for frame, p_HWC in store.frames_in_order(wait=follow))
    else:
        shard = store.layout.levels[0].shard[0]
        yield from ((0, top, p_HWC) for top, p_HWC in store.in_order(shard, wait=follow))


def _copy_level(store: Store, index: int, part: StoreFolder, array: ZarrArray) -> None:
    layout, level = store.layout, store.layout.levels[index]
    for frame, top in product(range(layout.frames or 1), range(0, level.height, level.shard[0])):
        rows_HWC = store.read_rows(top, min(top + level.shard[0], level.height), index, frame)
        write_rows(part / str(index), array, (top, 0), rows_HWC, layout.lead(frame), settle=False)


def is_ours(names: Set[str], about: bytes | None) -> bool:
    """Whether a folder of these names is an earlier export, and no working store."""
    try:
        attributes = json.loads(about or b"")["attributes"]
    except (ValueError, KeyError, TypeError):
        return False
    return "frieze" in attributes and all(map(others.fullmatch, names - {last}))
