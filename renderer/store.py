"""The working store: pixels, saved latents and the journal of one render, in one folder.

PATH/             zarr v3 group, OME-Zarr 0.5: arrays "0", "1", ... (axes (t,) c, y, x)
PATH/frieze/      run.json (layout, fingerprint, run), journal.jsonl, lock, latents/ (zarr group)

In a bucket the same lies under s3://BUCKET/NAME, with journal/ and lease.json.

Workers write whole blocks and latent rows that they alone own; the driver writes the journal, and
what the journal does not name does not count. Nothing is ever unpickled.
Shape suffixes: C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from . import latents
from .about import DAMAGE, FORMAT, damaged, differences, published, read_about
from .arrays import (
    ZarrArray,
    build_level,
    check_aligned,
    check_arrays,
    create_latents,
    create_picture,
    open_array,
    read_rows,
    write_block,
)
from .errors import FingerprintError, StoreError
from .following import Follow, Follower, frames_in_order, in_order, unfinished
from .homes import Home, home
from .journal import State as State
from .locations import Location as Location
from .locations import S3Path, location
from .pixels import BlockId as BlockId
from .pixels import LatentArray as LatentArray
from .pixels import StoreLayout as StoreLayout
from .pixels import required_bytes
from .writer import Writer as Writer


class Store:
    """An open store; cheap to open, safe to share between threads and to open in many processes.

    Every error is a `StoreError` of one line.
    """

    def __init__(
        self, path: Location, layout: StoreLayout, fingerprint: str, run: Mapping[str, Any]
    ) -> None:
        self.path = path
        self.home = home(path)
        self.layout = layout
        self.fingerprint = fingerprint
        self.run = run
        self.journal = self.home.journal()

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str] | S3Path,
        layout: StoreLayout,
        *,
        fingerprint: str,
        run: Mapping[str, Any],
        overwrite: bool = False,
    ) -> Store:
        """Make an empty store; the old one, if any, is there until the new one is whole.

        In a bucket, until the new one is begun. `run` is JSON: what drew the picture, shown when
        a resume does not fit. Raises `StoreError` if something else is at `path`, or the disk
        cannot hold the picture.
        """
        target = cls.check(path, layout, overwrite=overwrite)
        about = {
            "format": FORMAT,
            "fingerprint": fingerprint,
            "layout": layout.as_json(),
            "run": dict(run),
        }
        with home(target).made(overwrite=overwrite) as empty:
            create_picture(empty, layout, target.stem, published(run))
            create_latents(empty / "frieze" / "latents", layout)
            # Last of all: without it, what is there is half made.
            empty.write("frieze/run.json", json.dumps(about, indent=1).encode())
        return cls.open(target)

    @staticmethod
    def exists(path: str | os.PathLike[str] | S3Path) -> bool:
        """Whether anything is at `path`, be it a store or in the way of one."""
        return home(_real(path)).exists()

    @classmethod
    def check(
        cls, path: str | os.PathLike[str] | S3Path, layout: StoreLayout, *, overwrite: bool = False
    ) -> Location:
        """The place where `create` would make the store; raises what `create` would raise.

        It makes nothing, so that a render can look before its workers are started.
        """
        target = _real(path)
        home(target).check(required_bytes(layout), overwrite=overwrite)
        return target

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | S3Path,
        *,
        fingerprint: str | None = None,
        run: Mapping[str, Any] | None = None,
    ) -> Store:
        """Open a store for reading and, by its owners, for writing.

        With a `fingerprint`, raises `FingerprintError` if it is not the store's; the message
        names the fields of `run` that differ from the store's.
        """
        target = _real(path)
        about = read_about(home(target))
        try:
            layout = StoreLayout.from_json(about["layout"])
            store = cls(target, layout, str(about["fingerprint"]), dict(about["run"]))
            check_arrays(layout, store._pixels, store._saved)
        except DAMAGE as error:
            raise damaged(target, error) from error
        if fingerprint is not None and fingerprint != store.fingerprint:
            found = "; ".join(differences(store.run, run or {})) or "its fingerprint"
            raise FingerprintError(
                f"{target} was begun otherwise ({found}); resume it as it was begun, "
                "or draw to another name"
            )
        return store

    @property
    def provenance(self) -> dict[str, Any]:
        """What drew the picture, without paths and addresses: fit to be published.

        `fingerprint` is a digest of all that decides the pixels.
        """
        return {**published(self.run), "fingerprint": self.fingerprint}

    @property
    def is_complete(self) -> bool:
        """Whether all blocks, the pyramid and the metadata are there."""
        return self.journal.is_finished

    def done(self) -> frozenset[BlockId]:
        """Blocks that are whole on disk, in every level they own."""
        return self.journal.blocks()

    def covers(
        self, done: frozenset[BlockId] | set[BlockId], row: int, frame: int | None = None
    ) -> bool:
        """Whether `done` holds every block of the block row with pixel row `row`.

        Of a clip's `frame`, or of all its frames with None.
        """
        return done.issuperset(self.layout.ids(row, row + 1, frame))

    def last_state(self) -> State | None:
        """The newest state that every worker saved."""
        return self.journal.last_state()

    def write_rows(
        self, row: int, pixels_HWC: np.ndarray, frame: int | None = None
    ) -> list[BlockId]:
        """Write whole blocks and their pyramid levels; returns their ids once they are on disk.

        Raises `StoreError` unless the rows start and end where blocks do, and the store has the
        `frame` (clips only).
        """
        height, layout = pixels_HWC.shape[0], self.layout
        bottom = row + height
        if pixels_HWC.shape[1:] != (layout.width, layout.channels) or (
            pixels_HWC.dtype != layout.dtype
        ):
            raise StoreError(
                f"rows of {pixels_HWC.shape} {pixels_HWC.dtype}; this store takes "
                f"(rows, {layout.width}, {layout.channels}) {layout.dtype}"
            )
        check_aligned(slice(row, bottom), layout.block[0], layout.height, "blocks")
        layout.lead(frame)

        def write(at: tuple[int, int]) -> None:
            top, left = at[0] * layout.block[0], at[1] * layout.block[1]
            block_HWC = pixels_HWC[top - row :, left:][: layout.block[0], : layout.block[1]]
            write_block(self.home, layout, self._pixels, at, block_HWC, frame)

        self.home.each(write, layout.blocks(row, bottom))
        return layout.ids(row, bottom, frame)

    def read_rows(
        self, top: int, bottom: int, level: int = 0, frame: int | None = None
    ) -> np.ndarray:
        """Pixels [rows, W, C] of a level; raises `StoreError` where they are missing or damaged."""
        lead = self.layout.lead(frame)
        return read_rows(self.home / str(level), self._pixels[level], top, bottom, lead)

    def in_order(
        self,
        rows: int | None = None,
        *,
        poll: float = 0.2,
        wait: Follow = False,
        patience: float = 30.0,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first row, pixels [rows, W, C]) of a picture, as the journal has them.

        From the top down, in strips of `rows` rows (default: a block row), the last one fewer.
        With `wait` a missing block is waited for, looking every `poll` seconds, for as long as a
        driver is at work; raises `StoreError` if none is for `patience` seconds, or without
        `wait`.
        """
        if self.layout.frames is not None:
            raise StoreError(f"{self.path} is a clip; read its frames in order")
        follower = Follower(self.journal, wait=wait, poll=poll, patience=patience)
        return in_order(self, rows or self.layout.block[0], follower)

    def frames_in_order(
        self, *, poll: float = 0.2, wait: Follow = False, patience: float = 30.0
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (frame, pixels [H, W, C]) of a clip; waits or raises as `in_order` does."""
        if self.layout.frames is None:
            raise StoreError(f"{self.path} is a picture; read its rows in order")
        follower = Follower(self.journal, wait=wait, poll=poll, patience=patience)
        return frames_in_order(self, follower)

    def wait_finished(
        self, *, poll: float = 0.2, wait: Follow = False, patience: float = 30.0
    ) -> None:
        """Return when the whole pyramid is there; waits or raises as `in_order` does."""
        follower = Follower(self.journal, wait=wait, poll=poll, patience=patience)
        while not self.is_complete:
            if not follower.pause():
                raise unfinished(self)

    def save_latents(
        self,
        index: int,
        slot: int,
        rows: slice,
        latents_CTHW: np.ndarray,
        frames: slice | None = None,
    ) -> None:
        """Write one band's latents (float32, bit for bit) into a slot of a saved array.

        Of some `frames`, or of all. Raises `StoreError` unless rows and frames start and end
        where latent chunks do. Alternate the slots: a crash while saving then leaves the last
        good state whole.
        """
        array, described, folder = self._latents(index, slot)
        latents.save(array, described, folder, slot, rows, latents_CTHW, frames)

    def load_latents(
        self, index: int, slot: int, rows: slice, frames: slice | None = None
    ) -> np.ndarray:
        """Latents [C, T, rows, W] float32, any rows and frames (None: all).

        Raises `StoreError` if never saved.
        """
        array, _, folder = self._latents(index, slot)
        return latents.load(array, folder, slot, rows, frames)

    def finish(self, meta: Mapping[str, Any] | None = None) -> None:
        """Build the rest of the pyramid, write the provenance and close the journal.

        Single process, in strips; may be called again. Raises `StoreError` if blocks are missing.
        """
        if len(self.done()) < self.layout.num_blocks:
            raise unfinished(self)
        if self.is_complete:
            return
        self.journal.claim()
        self.home.tidy()
        for level in self.layout.levels[1:]:
            if not level.by_block:
                build_level(self.home, self.layout, level, self._pixels)
        group = zarr.open_group(self.home.zarr, mode="r+", zarr_format=3)
        group.update_attributes({"frieze": {**self.provenance, **published(meta or {})}})
        self.journal.append({"event": "finished"})
        self.journal.release()

    @cached_property
    def _pixels(self) -> tuple[ZarrArray, ...]:
        return tuple(open_array(self.home / str(i)) for i in range(self.layout.num_levels))

    @cached_property
    def _saved(self) -> tuple[ZarrArray, ...]:
        folder = self.home / "frieze" / "latents"
        return tuple(open_array(folder / array.name) for array in self.layout.latents)

    def _latents(self, index: int, slot: int) -> tuple[ZarrArray, LatentArray, Home]:
        saved = self.layout.latents
        if not (0 <= index < len(saved) and 0 <= slot < saved[index].shape[0]):
            raise StoreError(f"no slot {slot} of latents {index}; the store has {len(saved)} such")
        folder = self.home / "frieze" / "latents" / saved[index].name
        return self._saved[index], saved[index], folder


def _real(path: str | os.PathLike[str] | S3Path) -> Location:
    where = location(path, StoreError)
    return where if isinstance(where, S3Path) else Path(os.path.realpath(where))
