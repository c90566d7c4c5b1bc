"""Whether a name is taken, and a small file written over: in a folder or in a bucket."""

from __future__ import annotations

from ..errors import StoreError
from . import bucket
from .atomic import is_there, whole_file
from .bucket import Bucket
from .location import Location, S3Path


def is_taken(where: Location) -> bool:
    """Whether anything has this name."""
    return bucket.is_taken(where) if isinstance(where, S3Path) else is_there(where)


def replace(where: Location, data: bytes) -> None:
    """Write a small file in the place of an older one; there is always a whole one."""
    if isinstance(where, S3Path):
        Bucket(where.parents[0]).write(where.name, data)
        return
    with whole_file(where, overwrite=True, error=StoreError) as part:
        part.write_bytes(data)
