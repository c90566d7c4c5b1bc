"""Stores as zarr sees them: with errors of one line, and no lost file taken for fill."""

from __future__ import annotations

from typing import Any

from zarr import Array, AsyncArray
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore, StorePath, WrapperStore

from .errors import StoreError
from .locations import S3Path
from .s3 import client, told


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


class Reading(WrapperStore[Any]):
    """Files that must be there: zarr takes a lost one, and one of no bytes, for fill."""

    folder, where = "", ""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """A file's bytes, or some of them; raises `StoreError` where there are none."""
        found = await super().get(key, prototype, byte_range)
        name = f"{self.where}/{key.removeprefix(self.folder)}"
        if found is None:
            raise StoreError(f"{name} is missing; it was never written, or is lost")
        if not len(found):
            raise StoreError(f"{name} is damaged (it is cut off); draw it again")
        return found


class Writing(WrapperStore[Any]):
    """Files that are written whole: what is there already is not asked for, be it damaged."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Nothing."""
        return None


def reading(array: Any, where: str) -> Any:
    """An array of which a lost file is an error; `where` is its name."""
    place = array.async_array.store_path
    files = Reading(place.store)
    files.folder, files.where = f"{place.path}/" if place.path else "", where
    return _over(array, files)


def writing(array: Any) -> Any:
    """An array that is written file by file."""
    return _over(array, Writing(array.async_array.store_path.store))


def _over(array: Any, files: WrapperStore[Any]) -> Any:
    place = StorePath(files, array.async_array.store_path.path)
    return Array(AsyncArray(array.metadata, place, array.config))
