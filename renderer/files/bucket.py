"""Objects below a prefix of a bucket: every write is whole or did not happen, a name is a key.

What must not be written twice is written on a condition (RFC 9110, sec. 13.1: If-Match and
If-None-Match), so that of two drivers one is told that it came second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from . import s3
from .location import S3Path

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
    """A prefix of a bucket; `Folder` is the same of files.

    One that `is_quick` gives up soon on a server that does not answer.
    """

    def __init__(self, path: S3Path, *, is_quick: bool = False) -> None:
        self.path = path
        self.is_quick = is_quick

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> Self:
        return type(self)(self.path / name)

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
        """Put a file of any size; see `outputs.upload` for one that has a name of its own."""
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

    def settle(self, keys: Iterable[str]) -> None:
        """Nothing to do: an object that was put is there to stay."""

    def each(self, act: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Do the same to all items, several at a time."""
        with ThreadPoolExecutor(WIDTH) as pool:
            return list(pool.map(act, items))

    @property
    def _client(self) -> Any:
        return s3.client(self.path.bucket, self.path.access, is_quick=self.is_quick)


def is_taken(where: S3Path) -> bool:
    """Whether an object has this name, or lies below it."""
    import obstore

    store = s3.client(where.bucket, where.access, is_quick=True)
    try:
        with s3.told(where):
            obstore.head(store, where.key)
    except FileNotFoundError:
        return bool(Bucket(where, is_quick=True).names())
    return True
