"""A store's objects in a bucket: every write is whole or did not happen, and a name is a key.

What must not be written twice is written on a condition (RFC 9110, sec. 13.1: If-Match and
If-None-Match), so that of two drivers one is told that it came second.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from . import leases, s3
from .about import are_ours
from .errors import StoreError
from .journal import Journal
from .locations import S3Path
from .pages import PagedJournal

T = TypeVar("T")
R = TypeVar("R")

# Requests in flight at a time: a request takes its time, whatever its size.
WIDTH = 8


@dataclass(frozen=True)
class Found:
    """An object's bytes, the tag of this version of it, and when the server received it."""

    data: bytes
    tag: str
    modified: datetime


class Bucket:
    """A prefix of a bucket as a store sees it; `Folder` is the same of files.

    One that `is_quick` gives up soon on a server that does not answer.
    """

    def __init__(self, path: S3Path, *, is_quick: bool = False) -> None:
        self.path = path
        self.is_quick = is_quick

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> Bucket:
        return Bucket(self.path / name)

    @property
    def zarr(self) -> Any:
        """What zarr opens."""
        from .objects import view

        return view(self.path)

    def journal(self) -> Journal:
        """The events of the store that is here."""
        return PagedJournal(self)

    def reach(self) -> None:
        """Raise `StoreError` soon, and before any work, if the bucket is not to be had."""
        Bucket(self.path, is_quick=True).read("frieze/run.json")

    def check_files(self) -> None:
        """Nothing: objects lead nowhere else."""

    def read(self, name: str) -> bytes | None:
        """A small object; None where there is none."""
        found = self.fetch(name)
        return found.data if found else None

    def write(self, name: str, data: bytes) -> None:
        """Put a small object."""
        import obstore

        with s3.told(self.path):
            obstore.put(self._client, f"{self.path.key}/{name}", data)

    def fetch(self, name: str) -> Found | None:
        """A small object with its tag; None where there is none."""
        import obstore

        try:
            with s3.told(self.path):
                result = obstore.get(self._client, f"{self.path.key}/{name}")
                data = bytes(result.bytes())
        except FileNotFoundError:
            return None
        return Found(data, str(result.meta["e_tag"]), result.meta["last_modified"])

    def swap(self, name: str, data: bytes, tag: str | None) -> str | None:
        """Put an object if it is still as `tag` says (None: not there); None where it is not.

        Returns the new tag. `data` is told apart from what others write.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            with s3.told(self.path):
                mode: Any = "create" if tag is None else {"e_tag": tag}
                made = obstore.put(self._client, f"{self.path.key}/{name}", data, mode=mode)
        except (AlreadyExistsError, PreconditionError):
            # Our own request, sent again because its answer was lost?
            found = self.fetch(name)
            return found.tag if found and found.data == data else None
        return str(made["e_tag"])

    def tags(self, name: str) -> dict[str, str]:
        """{name: tag} of all objects below a name."""
        import obstore

        with s3.told(self.path):
            batches = list(obstore.list(self._client, f"{self.path.key}/{name}".rstrip("/")))
        start = len(self.path.key) + 1
        return {item["path"][start:]: str(item["e_tag"]) for batch in batches for item in batch}

    def send(self, name: str, file: Path) -> None:
        """Put a file of any size; see `uploads` for one that has a name of its own."""
        import obstore

        with s3.told(self.path):
            obstore.put(self._client, f"{self.path.key}/{name}", file, max_concurrency=2)

    def remove(self, names: Iterable[str]) -> None:
        """Delete objects, if they are there."""
        import obstore

        paths = [f"{self.path.key}/{name}" for name in names]
        if paths:
            with s3.told(self.path):
                obstore.delete(self._client, paths)

    def names(self) -> set[str]:
        """The names at the top, of objects and of what holds some."""
        import obstore

        with s3.told(self.path):
            found = obstore.list_with_delimiter(self._client, self.path.key)
        paths = [*found["common_prefixes"], *(item["path"] for item in found["objects"])]
        return {str(path).rstrip("/").rpartition("/")[2] for path in paths}

    def is_leased_only(self) -> bool:
        """Whether no more than a lease is in the folder `frieze` here."""
        return self.tags("frieze").keys() <= {leases.NAME}

    def kind(self) -> str:
        """What is here: "nothing", "store" (whole or half made) or "other"."""
        names = self.names()
        if names == {"frieze"} and self.is_leased_only():
            return "nothing"
        return ("store" if are_ours(names) else "other") if names else "nothing"

    def exists(self) -> bool:
        """Whether a store is here, or what is in the way of one."""
        self.reach()
        return self.read("frieze/run.json") is not None or self.kind() == "other"

    def check(self, needed: int, *, overwrite: bool) -> None:
        """Raise `StoreError` unless a store can be made here; leaves nothing that was not here.

        `needed` bytes are no matter. It is its driver's lease that shows the right to write.
        """
        self.reach()
        kind = self._replaceable(overwrite=overwrite)
        leases.claim(self)
        if kind == "nothing":
            leases.release(self)

    @contextlib.contextmanager
    def made(self, *, overwrite: bool) -> Iterator[Bucket]:
        """Yield this prefix, emptied; what the block writes last makes a store of it.

        Nothing can be renamed here: a store that is replaced is gone from here on.
        """
        leases.claim(self)
        if self._replaceable(overwrite=overwrite) == "store":
            # First of all what makes it a store, so that nobody takes what is left for one.
            self.remove(["frieze/run.json"])
            self.clear()
        try:
            yield self
        except BaseException:
            with contextlib.suppress(StoreError):
                self.clear()
            raise

    def clear(self) -> None:
        """Delete all that is here but the lease."""
        self.remove(name for name in self.tags("") if name != leases.NAME)

    def discard(self) -> None:
        """Delete the store that is here; first what makes it one."""
        self.remove(["frieze/run.json"])
        self.clear()

    def _replaceable(self, *, overwrite: bool) -> str:
        """The kind of what is here; raises if it must stay. What is half made may go."""
        kind = self.kind()
        if kind == "other":
            raise StoreError(f"{self} holds what Frieze did not make; use another name")
        if kind == "store" and not overwrite and self.read("frieze/run.json") is not None:
            raise StoreError(f"{self} is already there; use --overwrite or another name")
        return kind

    def settle(self, keys: Iterable[str]) -> None:
        """Nothing to do: an object that was put is there to stay."""

    def each(self, act: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Do the same to all items, several at a time."""
        with ThreadPoolExecutor(WIDTH) as pool:
            return list(pool.map(act, items))

    def tidy(self) -> None:
        """Nothing to do: a write that was interrupted left no object."""

    @property
    def _client(self) -> Any:
        return s3.client(self.path.bucket, self.path.access, is_quick=self.is_quick)
