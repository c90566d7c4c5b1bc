"""A clip as a folder of numbered TIFFs, `NAME.frames/000000.tif` and on, for compositing.

Each has the store's own bits (16 after a render with --bits 16), deflated with a predictor;
`frieze.json` beside them has the frame rate and what drew them.
Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Set
from pathlib import Path

import tifffile
from pydantic import BaseModel, ConfigDict, Field

from ..errors import ExportError
from ..files.atomic import check_space, whole_folder
from ..files.folder import Folder
from ..files.location import Location, S3Path
from ..spec.units import BYTES_OF
from ..store.follower import Follow
from ..store.layout import StoreLayout
from ..store.provenance import check_clip, color_of, dpi_of, source, tiff_tags

suffixes = (".frames",)
color_spaces = ("RGB", "CMYK")
last, others = "frieze.json", re.compile(r"\d{6,}\.tif")


class Options(BaseModel):
    """Of frames."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    level: int = Field(default=1, ge=1, le=9, description="deflate's: 1 fast, 9 small")
    workers: int | None = Field(
        default=None, ge=1, le=1024, description="compressing threads; default: all cores"
    )


DEFAULTS = Options()


def check(out: Location, layout: StoreLayout) -> None:
    """Raise `ExportError` unless such a store can be written there: it must be a clip."""
    check_clip(out, layout)


def export(
    store_path: str | os.PathLike[str] | S3Path,
    out_path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    follow: Follow = False,
    dpi: float | None = None,
    color: str | None = None,
    intent: str | None = None,
    options: Options = DEFAULTS,
) -> Path:
    """Write a store's clip as a folder of TIFFs; returns its path.

    `color` and `intent` say in which colours, as `color_of` takes them. With `follow` the store
    may still be drawn. Raises `ExportError` or `StoreError`, and leaves nothing then.
    """
    store, out = source(store_path, out_path), Path(out_path)
    layout = store.layout
    check(out, layout)
    colors = color_of(store, out, color, intent)
    tags = tiff_tags(dpi_of(store, dpi), store.provenance, color=colors)
    target = Path(os.path.realpath(out))
    with whole_folder(target, overwrite=overwrite, is_ours=_is_ours, error=ExportError) as part:
        check_space(target, (layout.frames or 0) * _bytes(layout, colors.channels), ExportError)
        about = {**store.provenance, "fps": layout.fps, "dpi": dpi_of(store, dpi)}
        (part / last).write_text(json.dumps(about, indent=1))
        frames = store.frames_in_order(wait=follow)
        for number, pixels_HWC in colors.strips(frames, options.workers):
            tifffile.imwrite(
                part / f"{number:06d}.tif",
                pixels_HWC,
                bigtiff=_bytes(layout, colors.channels) > 2**31,
                byteorder="<",
                compression="zlib",
                compressionargs={"level": options.level},
                predictor=True,
                maxworkers=options.workers or os.cpu_count() or 1,
                **tags,
            )
    return out


def _bytes(layout: StoreLayout, channels: int) -> int:
    return layout.height * layout.width * channels * BYTES_OF[layout.dtype]


def is_ours(names: Set[str], about: bytes | None) -> bool:
    """Whether a folder of these names is an earlier export and holds nothing else."""
    return about is not None and all(map(others.fullmatch, names - {last}))


def _is_ours(path: Path) -> bool:
    return is_ours({entry.name for entry in path.iterdir()}, Folder(path).read(last))
