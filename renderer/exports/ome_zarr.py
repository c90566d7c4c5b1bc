"""OME-Zarr 0.5 to hand over: the picture and its pyramid, without the working state.

Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from ..about import is_store
from ..arrays import write
from ..errors import ExportError
from ..pixels import required_bytes
from ..provenance import dpi_of, source
from ..store import Store, create_picture
from ..whole import check_space, whole_folder

suffixes = (".zarr",)


def export(
    store_path: str | os.PathLike[str],
    out_path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    follow: bool = False,
    dpi: float | None = None,
) -> Path:
    """Write a store as an OME-Zarr 0.5 folder; returns its path.

    With `follow` the store may still be drawn. Raises `ExportError` or `StoreError`, and leaves
    nothing then.
    """
    store, out = source(store_path, out_path), Path(out_path)
    layout = store.layout
    with whole_folder(
        Path(os.path.realpath(out)), overwrite=overwrite, is_ours=_is_ours, error=ExportError
    ) as part:
        check_space(out.absolute(), required_bytes(layout), ExportError)
        about = {**store.provenance, "dpi": dpi_of(store, dpi)}
        arrays = create_picture(part, layout, out.stem, about)
        whole = (slice(None),)
        for top, rows_HWC in store.in_order(layout.levels[0].shard[0], wait=follow):
            region = (*whole, slice(top, top + len(rows_HWC)), *whole)
            write(arrays[0], part / "0", region, np.moveaxis(rows_HWC, -1, 0), settle=False)
        store.wait_finished(wait=follow)
        for index in range(1, layout.num_levels):
            _copy_level(store, index, part, arrays[index])
    return out


def _copy_level(store: Store, index: int, part: Path, array: object) -> None:
    level = store.layout.levels[index]
    for top in range(0, level.height, level.shard[0]):
        bottom = min(top + level.shard[0], level.height)
        region = (slice(None), slice(top, bottom), slice(None))
        rows_HWC = store.read_rows(top, bottom, index)
        write(array, part / str(index), region, np.moveaxis(rows_HWC, -1, 0), settle=False)


def _is_ours(path: Path) -> bool:
    """Whether a folder is an earlier export, and no working store."""
    try:
        attributes = json.loads((path / "zarr.json").read_text())["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return "frieze" in attributes and not is_store(path)
