"""A bucket as zarr sees it: with errors of one line, and none of lost objects taken for fill."""

from __future__ import annotations

from typing import Any

from zarr import Array, AsyncArray
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore, StorePath

from .errors import StoreError
from .locations import S3Path
from .s3 import client, told


class Objects(ObjectStore[Any]):
    """All objects of a bucket; `is_strict`: a chunk that is asked for must be there."""

    where: S3Path
    is_strict = False

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """An object's bytes, or some of them; None where there is none."""
        with told(self.where):
            found = await super().get(key, prototype, byte_range)
        if found is None and self.is_strict and not key.endswith("zarr.json"):
            name = f"s3://{self.where.bucket}/{key}"
            raise StoreError(f"{name} is missing; it was never written, or is lost")
        return found

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


def view(where: S3Path, *, is_strict: bool = False) -> StorePath:
    """What zarr opens as the group or array at `where`."""
    objects = Objects(client(where.bucket, where.access))
    objects.where, objects.is_strict = where, is_strict
    return StorePath(objects, where.key)


def strict(array: Any, where: S3Path) -> Any:
    """An array of which a lost chunk is an error."""
    return Array(AsyncArray(array.metadata, view(where, is_strict=True), array.config))
