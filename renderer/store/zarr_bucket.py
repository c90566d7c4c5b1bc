"""Stores as zarr sees them: errors of one line, no lost file taken for fill, digests of files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from zarr import Array, AsyncArray
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, ObjectStore, StorePath, WrapperStore

from ..errors import StoreError
from ..files.location import S3Path
from ..files.s3 import client, told
from ..journal.checksums import digest


class Objects(ObjectStore[Any]):
    """All objects of a bucket."""

    where: S3Path

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """An object's bytes, or some of them; None where there is none."""
        with told(self.where):
            return await super().get(key, prototype, byte_range)

    async def set(self, key: str, value: Buffer) -> None:
        """Write one object: all of it, or nothing."""
        with told(self.where):
            await super().set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write one object, unless there is one."""
        with told(self.where):
            await super().set_if_not_exists(key, value)

    async def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        with told(self.where):
            return await super().exists(key)


def view(where: S3Path) -> StorePath:
    """What zarr opens as the group or array at `where`."""
    objects = Objects(client(where.bucket, where.access))
    objects.where = where
    return StorePath(objects, where.key)


class Digests(dict[str, str]):
    """What an array's files must be, by their keys; `checked` are those that were found to be."""

    def __init__(self, values: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init__(values)
        self.checked: set[str] = set()


class Reading(WrapperStore[Any]):
    """Files that must be there and be what was written.

    Zarr takes a lost one, and one of no bytes, for fill. One that is read in parts is read whole
    once, for its digest.
    """

    def __init__(self, store: Any, folder: str, where: str, digests: Digests) -> None:
        super().__init__(store)
        self._folder, self._where, self._digests = folder, where, digests
        self._held: dict[str, Buffer] = {}

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """A file's bytes, or some of them; raises `StoreError` where there are none."""
        short = key.removeprefix(self._folder)
        expected = self._digests.get(short)
        if short in self._held:
            return _part(self._held[short], byte_range)
        is_known = byte_range is not None and short in self._digests.checked
        if expected is None or is_known:
            return self._there(short, await super().get(key, prototype, byte_range))
        whole = self._there(short, await super().get(key, prototype))
        if digest(whole.as_buffer_like()) != expected:
            raise StoreError(f"{self._where}/{short} is damaged (it is not what was written there)")
        self._digests.checked.add(short)
        self._held[short] = whole
        return _part(whole, byte_range)

    def _there(self, key: str, found: Buffer | None) -> Buffer:
        if found is None:
            raise StoreError(f"{self._where}/{key} is missing; it was never written, or is lost")
        if not len(found):
            raise StoreError(f"{self._where}/{key} is damaged (it is cut off)")
        return found


class Writing(WrapperStore[Any]):
    """Files that are written whole: what is there already is not asked for, be it damaged.

    `digests` are those of the files that were written, by their keys in the store.
    """

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.digests: dict[str, str] = {}

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Nothing."""
        return None

    async def set(self, key: str, value: Buffer) -> None:
        """Write one file: all of it, or nothing."""
        self.digests[key] = digest(value.as_buffer_like())
        await super().set(key, value)


def reading(array: Any, where: str, digests: Digests) -> Any:
    """An array to read, of which lost and changed files are errors; `where` is its name."""
    place = array.async_array.store_path
    return _over(array, Reading(place.store, _folder(place), where, digests))


def write(array: Any, region: tuple[slice, ...], values: np.ndarray) -> dict[str, str]:
    """Write a region of whole files; returns {key: digest} of each."""
    place = array.async_array.store_path
    files = Writing(place.store)
    _over(array, files)[region] = values
    return {key.removeprefix(_folder(place)): found for key, found in files.digests.items()}


def array_of(place: Path | StorePath, document: Any, config: Any) -> Any:
    """The array that a zarr.json describes, in a folder or bucket; nothing is looked up."""
    where = place if isinstance(place, StorePath) else StorePath(LocalStore(place))
    return Array(AsyncArray(document, where, config))


def _over(array: Any, files: WrapperStore[Any]) -> Any:
    place = StorePath(files, array.async_array.store_path.path)
    return Array(AsyncArray(array.metadata, place, array.config))


def _folder(place: StorePath) -> str:
    return f"{place.path}/" if place.path else ""


def _part(whole: Buffer, byte_range: ByteRequest | None) -> Buffer:
    match byte_range:
        case RangeByteRequest(start=start, end=end):
            return whole[start:end]
        case OffsetByteRequest(offset=offset):
            return whole[offset:]
        case SuffixByteRequest(suffix=suffix):
            return whole[max(0, len(whole) - suffix) :]
        case _:
            return whole
