"""The folder or bucket prefix that holds a store: what is there, and making a new one.

`StoreFolder` and `StoreBucket` have the same methods.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import StoreError
from ..files import lease
from ..files.atomic import check_place, check_replaceable, check_space, recover, whole_folder
from ..files.bucket import Bucket
from ..files.folder import Folder
from ..files.location import Location, S3Path
from ..files.regular_files import check_tree
from ..files.scratch import scratch
from ..journal.bucket_journal import BucketJournal
from ..journal.journal import FileJournal, Journal
from .run_record import DAMAGE, are_ours, damaged, is_store, parse


class StoreFolder(Folder):
    """A store in a folder."""

    @property
    def zarr(self) -> Path:
        """What zarr opens."""
        return self.path

    def journal(self) -> Journal:
        """The events of the store that is here."""
        return FileJournal(self.path / "frieze" / "journal.jsonl")

    def reach(self) -> None:
        """Bring back what a process that was killed had set aside."""
        if not self.path.exists():
            recover(self.path)

    def check_files(self) -> None:
        """Raise `StoreError` where something in here is no file or folder, but leads elsewhere."""
        check_tree(self.path)

    def exists(self) -> bool:
        """Whether anything is here, be it a store or in the way of one."""
        recover(self.path)
        return self.path.exists()

    def kind(self) -> str:
        """What is here: "nothing", "store" (whole or half made) or "other"."""
        if not self.path.is_dir():
            return "nothing"
        return "store" if are_ours(entry.name for entry in self.path.iterdir()) else "other"

    def check(self, needed: int, *, overwrite: bool) -> None:
        """Raise `StoreError` unless a store of so many bytes can be made here; makes nothing."""
        recover(self.path)
        check_place(self.path, StoreError)
        check_replaceable(self.path, overwrite=overwrite, is_ours=is_store, error=StoreError)
        if (self.path / "frieze").is_dir():
            self.check_files()
            self.journal().claim()
        check_space(self.path, needed, StoreError)

    @contextmanager
    def made(self, *, overwrite: bool) -> Iterator[StoreFolder]:
        """Yield an empty folder that takes this one's name when the block ends well."""
        with whole_folder(
            self.path, overwrite=overwrite, is_ours=is_store, error=StoreError
        ) as part:
            yield StoreFolder(part)
            FileJournal(part / "frieze" / "journal.jsonl").claim()

    def discard(self) -> None:
        """Delete the store that is here: at once, as far as others can see."""
        with scratch(self.path.parent, self.path.name) as folder:
            os.replace(self.path, folder / self.path.name)

    def tidy(self) -> None:
        """Drop what writers that were killed left half written."""
        for leftover in self.path.rglob("*.partial"):
            leftover.unlink()


class StoreBucket(Bucket):
    """A store below a prefix of a bucket."""

    @property
    def zarr(self) -> Any:
        """What zarr opens."""
        from .zarr_bucket import view

        return view(self.path)

    def journal(self) -> Journal:
        """The events of the store that is here."""
        return BucketJournal(self)

    def reach(self) -> None:
        """Raise `StoreError` soon, and before any work, if the bucket is not to be had."""
        Bucket(self.path, is_quick=True).read("frieze/run.json")

    def check_files(self) -> None:
        """Nothing: objects lead nowhere else."""

    def exists(self) -> bool:
        """Whether a store is here, or what is in the way of one."""
        self.reach()
        return self.read("frieze/run.json") is not None or self.kind() == "other"

    def kind(self) -> str:
        """What is here: "nothing", "store" (whole or half made) or "other"."""
        names = self.names()
        if names == {"frieze"} and lease.is_leased_only(self):
            return "nothing"
        return ("store" if are_ours(names) else "other") if names else "nothing"

    def check(self, needed: int, *, overwrite: bool) -> None:
        """Raise `StoreError` unless a store can be made here; leaves nothing that was not here.

        `needed` bytes are no matter. It is its driver's lease that shows the right to write.
        """
        self.reach()
        kind = self._replaceable(overwrite=overwrite)
        lease.claim(self)
        if kind == "nothing":
            lease.release(self)

    @contextmanager
    def made(self, *, overwrite: bool) -> Iterator[StoreBucket]:
        """Yield this prefix, emptied; what the block writes last makes a store of it.

        Nothing can be renamed here: a store that is replaced is gone from here on.
        """
        lease.claim(self)
        if self._replaceable(overwrite=overwrite) == "store":
            # First of all what makes it a store, so that nobody takes what is left for one.
            self.remove(["frieze/run.json"])
            lease.clear(self)
        try:
            yield self
        except BaseException:
            with contextlib.suppress(StoreError):
                lease.clear(self)
            raise

    def discard(self) -> None:
        """Delete the store that is here; first what makes it one."""
        self.remove(["frieze/run.json"])
        lease.clear(self)

    def tidy(self) -> None:
        """Nothing to do: a write that was interrupted left no object."""

    def _replaceable(self, *, overwrite: bool) -> str:
        """The kind of what is here; raises if it must stay. What is half made may go."""
        kind = self.kind()
        if kind == "other":
            raise StoreError(f"{self} holds what Frieze did not make; use another name")
        if kind == "store" and not overwrite and self.read("frieze/run.json") is not None:
            raise StoreError(f"{self} is already there; use --overwrite or another name")
        return kind


StoreDirectory = StoreFolder | StoreBucket


def store_directory(where: Location) -> StoreDirectory:
    """The directory of a store at a place; nothing is looked up yet."""
    return StoreBucket(where) if isinstance(where, S3Path) else StoreFolder(where)


def holds_store(where: Location) -> bool:
    """Whether a store was made at a place; so it may be, where that cannot be found out."""
    directory = Bucket(where, is_quick=True) if isinstance(where, S3Path) else Folder(where)
    try:
        return directory.read("frieze/run.json") is not None
    except OSError:  # a StoreError is one
        return True


def read_run_record(directory: StoreDirectory) -> dict[str, Any]:
    """run.json of the store there; raises `StoreError` that says what is there instead."""
    directory.reach()
    directory.check_files()
    try:
        text = directory.read("frieze/run.json")
        if text is None:
            raise StoreError(_found_instead(directory))
        return parse(text)
    except DAMAGE as error:
        raise damaged(directory, error) from error


def _found_instead(directory: StoreDirectory) -> str:
    kind = directory.kind()
    if kind == "nothing":
        return f"there is no store at {directory}"
    if kind == "store":
        return f"{directory} is half made; draw it again"
    return f"{directory} is no Frieze store; give one's path"
