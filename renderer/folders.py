"""A store's files in a folder: written whole, settled on disk, guarded by POSIX locks.

A network file system is a folder too, if its locks work from all hosts (NFS 4 does).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from .about import are_ours, is_store
from .errors import StoreError
from .journal import FileJournal, Journal
from .regular_files import check_tree, opener
from .scratch import scratch
from .whole import check_place, check_replaceable, check_space, recover, whole_folder

T = TypeVar("T")
R = TypeVar("R")


class Folder:
    """A folder as a store sees it; `Bucket` is the same of objects."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> Folder:
        return Folder(self.path / name)

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

    def read(self, name: str) -> bytes | None:
        """A small file; None where there is none."""
        try:
            with open(self.path / name, "rb", opener=opener) as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def write(self, name: str, data: bytes) -> None:
        """Make a small file, and the folder for it."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

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
    def made(self, *, overwrite: bool) -> Iterator[Folder]:
        """Yield an empty folder that takes this one's name when the block ends well."""
        with whole_folder(
            self.path, overwrite=overwrite, is_ours=is_store, error=StoreError
        ) as part:
            yield Folder(part)
            FileJournal(part / "frieze" / "journal.jsonl").claim()

    def discard(self) -> None:
        """Delete the store that is here: at once, as far as others can see."""
        with scratch(self.path.parent, self.path.name) as folder:
            os.replace(self.path, folder / self.path.name)

    def settle(self, keys: Iterable[str]) -> None:
        """Return when these files are on disk, not only on their way."""
        for key in keys:
            descriptor = os.open(self.path / key, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def each(self, act: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Do the same to all items: one by one, for a disk is no faster otherwise."""
        return [act(item) for item in items]

    def tidy(self) -> None:
        """Drop what writers that were killed left half written."""
        for leftover in self.path.rglob("*.partial"):
            leftover.unlink()
