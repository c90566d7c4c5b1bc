"""What is on view: stores and batches of one folder or bucket, by keys that are no paths.

Nothing is written and no lease is taken. What cannot be read is told as one line.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import StoreError, line, printable
from ..files.bucket import Bucket
from ..files.location import Location, S3Path, location
from ..monitoring.status import Status, status
from ..store.directory import holds_store
from ..store.run_record import DAMAGE, damaged
from ..store.store import Store
from . import latent_preview
from .batch_entry import BatchEntry
from .latent_preview import ColourFit
from .tiles import TileCache, TilePyramid

MOST_ENTRIES, MOST_DEEP = 2000, 3  # stores and batches, and folders in folders
CACHE_BYTES = 128 * 2**20
# Seconds until a store is looked at again: one at work, and one that waits for somebody.
AT_WORK, AT_REST = 1.0, 5.0
SCAN_SECONDS, BUCKET_SECONDS = 3.0, 30.0
# Seconds that one answer may spend on looking at stores; the rest are told as they were.
MOST_SECONDS = 0.5
MORE_DRAWN = 0.1  # of a picture, until colours are fitted anew
MOST_PROMPT = 400  # letters in a list


@dataclass
class StoreEntry:
    """One store, looked at anew when it may have changed; safe to share between threads."""

    place: Location
    name: str
    cache: TileCache
    store: Store | None = None
    pyramid: TilePyramid | None = None
    status: Status | None = None
    fault: str = ""
    looked: float = 0.0  # when, by the monotonic clock; 0 never
    _signature: tuple[object, ...] = ()
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _preview: tuple[object, bytes | None] = (None, None)

    def look(self) -> None:
        """See how it stands, unless that was seen just now."""
        with self._turn:
            now = time.monotonic()
            if self.looked and now - self.looked < self._pause():
                return
            found = _signature(self.place)
            is_settled = self.status is not None and self.status.state == "done"
            is_new = found is None or found != self._signature
            if is_new or not is_settled or not self.looked:
                self._read(is_same=found is not None and found[:1] == self._signature[:1])
            self._signature, self.looked = found or (), time.monotonic()

    def _pause(self) -> float:
        at_work = self.status is not None and self.status.state in ("running", "silent")
        return AT_WORK if at_work or not isinstance(self.place, S3Path) else AT_REST

    def _read(self, *, is_same: bool) -> None:
        """`is_same` where its run.json is the file that it was."""
        try:
            if isinstance(self.place, Path) and not self.place.is_dir():
                raise StoreError(f"there is no store at {self.place} any more")
            self.status = status(self.place)
            if self.store is None or not is_same:
                store = Store.open(self.place)
                if (
                    self.store is None
                    or isinstance(self.place, Path)
                    or (store.fingerprint != self.store.fingerprint)
                ):
                    self.store, self.pyramid = store, TilePyramid(store, self.cache)
            self.fault = ""
        except DAMAGE as error:  # of our errors all that stores raise, and what damage makes others
            self.store = self.pyramid = self.status = None
            self.fault = line(damaged(self.place, error))

    @property
    def drawn(self) -> float:
        """The part of its blocks that are."""
        return self.status.blocks / self.status.num_blocks if self.status else 0.0

    @property
    def prompt(self) -> str:
        """What the picture shows, as somebody wrote it."""
        picture = self.store.run.get("picture", {}) if self.store else {}
        return printable(str(picture.get("prompt") or ""), kept="\n")

    @property
    def edition(self) -> str:
        """Another one whenever the store was made anew: what it shows for good may be cached."""
        told = (self.store.fingerprint if self.store else "", self._signature[:1])
        return hashlib.sha256(repr(told).encode()).hexdigest()[:12]

    @property
    def revision(self) -> str:
        """Another one whenever the picture shows more, or another, than before."""
        if self.status is None or self.store is None:
            return ""
        told = (self.store.fingerprint, *self._at(), self.status.blocks, self.status.state)
        return hashlib.sha256(repr(told).encode()).hexdigest()[:12]

    def _at(self) -> tuple[int, int]:
        state = self.store.last_state() if self.store else None
        return (state.stage, state.step) if state else (-1, -1)

    def preview(self, known: ColourFit | None, frame: int) -> bytes | None:
        """A PNG of the newest latents, or of those before while new ones are written."""
        store = self.store
        if store is None:
            return None
        key = (self._at(), frame, known)
        if self._preview[0] != key:
            # A slot may be written over just now; the next look finds another.
            with contextlib.suppress(StoreError):
                self._preview = key, latent_preview.preview(store, known, frame)
        return self._preview[1]


def _signature(place: Location) -> tuple[object, ...] | None:
    """Another one if a store's files may be others; None where that cannot be told cheaply."""
    if isinstance(place, S3Path):
        return None
    try:
        found = [os.stat(place / "frieze" / name) for name in ("run.json", "journal.jsonl")]
    except OSError:
        return None
    return tuple((each.st_ino, each.st_size, each.st_mtime_ns) for each in found)


class Collection:
    """Everything on view below one place; raises `StoreError` where that is nothing of the kind."""

    def __init__(self, where: str | os.PathLike[str]) -> None:
        place = location(where, StoreError)
        self.root: Location = place if isinstance(place, S3Path) else Path(os.path.realpath(place))
        if isinstance(self.root, Path) and not self.root.is_dir():
            what = "is a file" if self.root.exists() else "is not there"
            raise StoreError(
                f"{where} {what}; give a store, a folder of stores or s3://bucket/name"
            )
        self.is_store = holds_store(self.root)
        self.cache = TileCache(CACHE_BYTES)
        self.stores: dict[str, StoreEntry] = {}
        self.batches: dict[str, BatchEntry] = {}
        self._fits: dict[tuple[str, str, int], tuple[float, ColourFit]] = {}
        self.scanned = 0.0
        self._turn = threading.Lock()
        self.scan()

    @property
    def name(self) -> str:
        """The last part of the place's name."""
        return printable(self.root.name or str(self.root))

    def scan(self) -> None:
        """Find what is there now; what was there keeps its key."""
        with self._turn:
            pause = BUCKET_SECONDS if isinstance(self.root, S3Path) else SCAN_SECONDS
            if self.scanned and time.monotonic() - self.scanned < pause:
                return
            try:
                found = list(_found(self.root, self.is_store))
            except StoreError:
                if not self.scanned:
                    raise
                return  # a bucket that does not answer: what was there still is, for all we know
            stores, batches = {}, {}
            for kind, name, place in found:
                key = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:12]
                if kind == "batch":
                    batches[key] = self.batches.get(key) or BatchEntry(printable(name), place)
                else:
                    stores[key] = self.stores.get(key) or StoreEntry(
                        place, printable(name), self.cache
                    )
            self.stores, self.batches = stores, batches
            self.scanned = time.monotonic()

    def look(self) -> None:
        """See how all stand, for `MOST_SECONDS` at most: first those not seen for longest."""
        self.scan()
        until = time.monotonic() + MOST_SECONDS
        for entry in sorted(self.stores.values(), key=lambda each: each.looked):
            entry.look()
            if time.monotonic() > until:
                break

    def fit(self, entry: StoreEntry) -> ColourFit | None:
        """The colours of an entry's latents, if any picture on view tells them.

        The more of one is drawn, the better it tells: a sky alone knows no forest.
        """
        if entry.store is None or (key := latent_preview.key_of(entry.store)) is None:
            return None
        shared = [
            each
            for each in (entry, *self.stores.values())
            if each.store is not None and latent_preview.key_of(each.store) == key
        ]
        best = max(shared, key=lambda each: each.drawn)
        known = self._fits.get(key)
        if best.pyramid is not None and (known is None or best.drawn > known[0] + MORE_DRAWN):
            with contextlib.suppress(StoreError):
                found = latent_preview.fit(best.pyramid.store, best.pyramid)
                if found is not None:
                    known = self._fits[key] = best.drawn, found
        return known[1] if known else None


def _found(root: Location, is_store: bool) -> Iterator[tuple[str, str, Location]]:
    """(kind, name, place) of stores and batches; names go from the root on."""
    if is_store:
        yield "store", root.name, root
        return
    count = 0
    walk = _in_bucket(root) if isinstance(root, S3Path) else _in_folder(root, "", MOST_DEEP)
    for each in walk:
        if (count := count + 1) > MOST_ENTRIES:
            return
        yield each


def _in_folder(folder: Path, name: str, deep: int) -> Iterator[tuple[str, str, Location]]:
    """What lies in a folder, links to elsewhere left out."""
    if (folder / "frieze" / "run.json").is_file():
        yield "store", name, folder
        return
    if (folder / "frieze" / "journal.jsonl").is_file():
        yield "batch", name or folder.name, folder
    if not deep:
        return
    try:
        with os.scandir(folder) as entries:
            inside = sorted(
                (e.name for e in entries if e.is_dir(follow_symlinks=False) and e.name[0] != "."),
            )
    except OSError:
        return
    for each in inside:
        yield from _in_folder(folder / each, f"{name}/{each}" if name else each, deep - 1)


def _in_bucket(root: S3Path) -> Iterator[tuple[str, str, Location]]:
    names = Bucket(root).names()
    if "frieze" in names:
        yield "batch", root.name, root
    for name in sorted(names):
        if name.endswith(".zarr") and holds_store(root / name):
            yield "store", name, root / name
