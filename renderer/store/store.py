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
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FingerprintError, StoreError
from ..files.location import Location as Location
from ..files.location import S3Path, location
from ..files.operations import replace
from ..journal.checksums import sealed
from ..journal.inventory import Reuse
from ..journal.inventory import SavedState as SavedState
from . import arrays
from .array_reader import ArrayReader
from .arrays import (
    ZarrArray,
    build_level,
    check_aligned,
    check_arrays,
    latent_documents,
    picture_documents,
    rows_of,
    write_block,
    write_documents,
)
from .chunk_keys import LATENTS
from .directory import read_run_record, store_directory
from .follower import Follow, Follower
from .layout import BlockId as BlockId
from .layout import LatentArray as LatentArray
from .layout import StoreLayout as StoreLayout
from .layout import required_bytes
from .run_record import DAMAGE, FORMAT, damaged, differences, is_sealed, published


class Store:
    """An open store; cheap to open, safe to share between threads and to open in many processes.

    Every error is a `StoreError` of one line.
    """

    def __init__(self, path: Location, about: Mapping[str, Any]) -> None:
        """`about` is what run.json says."""
        self.path = path
        self.directory = store_directory(path)
        self.layout = StoreLayout.from_json(about["layout"])
        self.fingerprint: str = about["fingerprint"]
        self.run: Mapping[str, Any] = about["run"]
        self.documents: Mapping[str, dict[str, Any]] = about.get("documents", {})
        self.journal = self.directory.journal()
        self.journal.is_sealed = is_sealed(about)
        self.arrays = ArrayReader(self.directory, self.layout, self.documents, self.journal)

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
        latents = latent_documents(layout).items()
        documents = picture_documents(layout, target.stem, published(run))
        documents |= {f"{LATENTS}/{name}": document for name, document in latents}
        about = {
            "format": FORMAT,
            "fingerprint": fingerprint,
            "layout": layout.as_json(),
            "run": dict(run),
            "documents": documents,
        }
        with store_directory(target).made(overwrite=overwrite) as empty:
            write_documents(empty, documents)
            # Last of all: without it, what is there is half made.
            empty.write("frieze/run.json", json.dumps(sealed(about), indent=1).encode())
        return cls.open(target)

    @staticmethod
    def exists(path: str | os.PathLike[str] | S3Path) -> bool:
        """Whether anything is at `path`, be it a store or in the way of one."""
        return store_directory(_real(path)).exists()

    @classmethod
    def check(
        cls, path: str | os.PathLike[str] | S3Path, layout: StoreLayout, *, overwrite: bool = False
    ) -> Location:
        """The place where `create` would make the store; raises what `create` would raise.

        It makes nothing, so that a render can look before its workers are started.
        """
        target = _real(path)
        store_directory(target).check(required_bytes(layout), overwrite=overwrite)
        return target

    @classmethod
    def open(cls, path: str | os.PathLike[str] | S3Path, *, mends: bool = False) -> Store:
        """Open a store for reading and, by its owners, for writing.

        Raises `StoreError` where there is none, or it is damaged; with `mends` what can be written
        again, its zarr.json, may be.
        """
        target = _real(path)
        about = read_run_record(store_directory(target))
        try:
            store = cls(target, about)
            check_arrays(store.layout, store.arrays.pixels, store.arrays.saved)
        except DAMAGE as error:
            raise damaged(target, error) from error
        if not mends and (found := store.arrays.damaged_documents()):
            name, reason = next(iter(found.items()))
            raise StoreError(
                f"{target}/{name} is damaged (it {reason}); frieze resume {target} writes it anew"
            )
        return store

    def check_fingerprint(self, fingerprint: str, run: Mapping[str, Any]) -> None:
        """Raise `FingerprintError` if it is another's; names the fields of `run` that differ."""
        if fingerprint != self.fingerprint:
            found = "; ".join(differences(self.run, run)) or "its fingerprint"
            raise FingerprintError(
                f"{self.path} was begun otherwise ({found}); resume it as it was begun, "
                "or draw to another name"
            )

    def write_documents(self, names: Iterable[str]) -> None:
        """Write zarr.json files anew, whole."""
        for name in names:
            replace(self.path / name, json.dumps(self.documents[name], indent=2).encode())

    @property
    def provenance(self) -> dict[str, Any]:
        """What drew the picture, without paths and addresses: fit to be published.

        `fingerprint` is a digest of all that decides the pixels.
        """
        return {**published(self.run), "fingerprint": self.fingerprint}

    def recorded(self, name: str) -> Any:
        """What the run says of itself; raises `StoreError` where it does not say that."""
        if self.run.get(name) is None:
            raise StoreError(f"{self.path} does not say its {name}: no render made it")
        return self.run[name]

    @property
    def num_steps(self) -> tuple[int, ...]:
        """Steps of each stage; empty in a store that no render made."""
        return tuple(len(stage["levels"]) - 1 for stage in self.run.get("stages", ()))

    @property
    def is_complete(self) -> bool:
        """Whether all blocks, the pyramid and the metadata are there."""
        return self.journal.is_finished

    def done(self) -> frozenset[BlockId]:
        """Blocks that are whole on disk, in every level they own."""
        return frozenset(filter(self.layout.has, self.arrays.inventory().blocks))

    def covers(
        self, done: frozenset[BlockId] | set[BlockId], row: int, frame: int | None = None
    ) -> bool:
        """Whether `done` holds every block of the block row with pixel row `row`.

        Of a clip's `frame`, or of all its frames with None.
        """
        return done.issuperset(self.layout.ids(row, row + 1, frame))

    def states(self) -> list[SavedState]:
        """States that every worker saved and that can be gone on from, in their order."""
        return list(filter(self._has, self.arrays.inventory().usable()))

    def last_state(self) -> SavedState | None:
        """The newest of the states."""
        return next(reversed(self.states()), None)

    def confirm_state(
        self,
        state: SavedState,
        parts: Iterable[Mapping[int, str]],
        *,
        focus: bool = False,
        reuse: Reuse | None = None,
    ) -> None:
        """Say in the journal that a state is whole: `parts` are what `save_latents` returned.

        With `focus` the state is none without what its stage's first step measured; `reuse` is how
        its step cache stands.
        """
        array = self.layout.latents[state.stage]
        about = {**vars(state), "sums": self.arrays.joined(array, state.slot, parts)}
        more: dict[str, Any] = {"focus": True} if focus else {}
        more |= reuse._asdict() if reuse is not None else {}
        self.journal.append({"event": "state", **about, **more})

    def confirm_kept(self, name: str, slot: int, parts: Iterable[Mapping[int, str]]) -> None:
        """Say the same of a slot of an array that is no state."""
        array = next(array for array in self.layout.latents if array.name == name)
        sums = self.arrays.joined(array, slot, parts)
        self.journal.append({"event": "kept", "array": name, "slot": slot, "sums": sums})

    def write_rows(
        self, row: int, pixels_HWC: np.ndarray, frame: int | None = None
    ) -> dict[BlockId, str]:
        """Write whole blocks and their pyramid levels; returns once they are on disk.

        What it returns, {id: digests of its files}, is what the journal is to say. Raises
        `StoreError` unless the rows start and end where blocks do, and the store has the `frame`
        (clips only).
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

        def write(at: tuple[int, int]) -> str:
            top, left = at[0] * layout.block[0], at[1] * layout.block[1]
            block_HWC = pixels_HWC[top - row :, left:][: layout.block[0], : layout.block[1]]
            return write_block(self.directory, layout, self.arrays.pixels, at, block_HWC, frame)

        digests = self.directory.each(write, layout.blocks(row, bottom))
        return dict(zip(layout.ids(row, bottom, frame), digests, strict=True))

    def read_rows(
        self, top: int, bottom: int, level: int = 0, frame: int | None = None
    ) -> np.ndarray:
        """Pixels [rows, W, C] of a level; raises `StoreError` where they are missing or damaged."""
        region = (*self.layout.lead(frame), slice(top, bottom), slice(None))
        return rows_of(self.arrays.read(str(level), self.arrays.pixels[level], region))

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
        return self._strips(rows or self.layout.block[0], follower)

    def frames_in_order(
        self, *, poll: float = 0.2, wait: Follow = False, patience: float = 30.0
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (frame, pixels [H, W, C]) of a clip; waits or raises as `in_order` does."""
        if self.layout.frames is None:
            raise StoreError(f"{self.path} is a picture; read its rows in order")
        follower = Follower(self.journal, wait=wait, poll=poll, patience=patience)
        return self._frames(self.layout.frames, follower)

    def wait_finished(
        self, *, poll: float = 0.2, wait: Follow = False, patience: float = 30.0
    ) -> None:
        """Return when the whole pyramid is there; waits or raises as `in_order` does."""
        follower = Follower(self.journal, wait=wait, poll=poll, patience=patience)
        while not self.is_complete:
            if not follower.pause():
                raise self._unfinished()

    def _strips(self, rows: int, follower: Follower) -> Iterator[tuple[int, np.ndarray]]:
        height, done = self.layout.height, frozenset[BlockId]()
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            done = self._followed(self.layout.ids(top, bottom), done, follower)
            yield top, self.read_rows(top, bottom)

    def _frames(self, count: int, follower: Follower) -> Iterator[tuple[int, np.ndarray]]:
        height, done = self.layout.height, frozenset[BlockId]()
        for frame in range(count):
            done = self._followed(self.layout.ids(0, height, frame), done, follower)
            yield frame, self.read_rows(0, height, frame=frame)

    def _followed(
        self, needed: Iterable[BlockId], done: frozenset[BlockId], follower: Follower
    ) -> frozenset[BlockId]:
        """The blocks that are done, once the needed ones are; `StoreError` if none is coming."""
        wanted = frozenset(needed)
        while not done >= wanted:
            done = self.done()
            if not done >= wanted and not follower.pause():
                raise self._unfinished()
        return done

    def _unfinished(self) -> StoreError:
        """The error of asking for what is not drawn yet."""
        done, total = len(self.done()), self.layout.num_blocks
        return StoreError(
            f"{self.path} is not finished ({done} of {total} blocks); resume it first, "
            "or follow it while it is drawn"
        )

    def save_latents(
        self,
        index: int,
        slot: int,
        rows: slice,
        latents_CTHW: np.ndarray,
        frames: slice | None = None,
    ) -> dict[int, str]:
        """Write one band's latents (float32, bit for bit) into a slot of a saved array.

        Of some `frames`, or of all. Returns {number of a chunk: digest}. Raises `StoreError`
        unless rows and frames start and end where latent chunks do. Alternate the slots: a crash
        while saving then leaves the last good state whole.
        """
        array, described = self._latents(index, slot)
        folder = self.directory / LATENTS / described.name
        return arrays.save(array, described, folder, slot, rows, latents_CTHW, frames)

    def load_latents(
        self, index: int, slot: int, rows: slice, frames: slice | None = None
    ) -> np.ndarray:
        """Latents [C, T, rows, W] float32, any rows and frames (None: all).

        Raises `StoreError` if never saved.
        """
        array, described = self._latents(index, slot)
        region = (slice(slot, slot + 1), slice(None), frames or slice(None), rows, slice(None))
        found_CTHW: np.ndarray = self.arrays.read(f"{LATENTS}/{described.name}", array, region)[0]
        return found_CTHW

    def finish(self) -> None:
        """Build the rest of the pyramid and close the journal.

        Single process, in strips; may be called again. Raises `StoreError` if blocks are missing.
        """
        if len(self.done()) < self.layout.num_blocks:
            raise self._unfinished()
        if self.is_complete:
            return
        self.journal.claim()
        self.directory.tidy()
        digests: dict[str, str] = {}
        for level in self.layout.levels[1:]:
            if not level.by_block:
                array = self.arrays.pixels[level.index]
                made = build_level(self.directory, self.layout, level, array, self.read_rows)
                digests[str(level.index)] = made
        self.journal.append({"event": "finished", "levels": digests})
        self.journal.release()

    def _latents(self, index: int, slot: int) -> tuple[ZarrArray, LatentArray]:
        saved = self.layout.latents
        if not (0 <= index < len(saved) and 0 <= slot < saved[index].shape[0]):
            raise StoreError(f"no slot {slot} of latents {index}; the store has {len(saved)} such")
        return self.arrays.saved[index], saved[index]

    def _has(self, state: SavedState) -> bool:
        """Whether there can be such a state."""
        saved, stage, steps = self.layout.latents, state.stage, self.num_steps
        if stage >= len(saved) or state.slot >= saved[stage].shape[0]:
            return False
        return not steps or (stage < len(steps) and state.step <= steps[stage])


def _real(path: str | os.PathLike[str] | S3Path) -> Location:
    where = location(path, StoreError)
    return where if isinstance(where, S3Path) else Path(os.path.realpath(where))
