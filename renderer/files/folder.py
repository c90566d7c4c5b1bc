"""A store's files in a folder: written whole, settled on disk, guarded by POSIX locks.

A network file system is a folder too, if its locks work from all hosts (NFS 4 does).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self, TypeVar

from .regular_files import opener

T = TypeVar("T")
R = TypeVar("R")


class Folder:
    """A folder; `Bucket` is the same of objects."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> Self:
        return type(self)(self.path / name)

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
