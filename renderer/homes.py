"""What holds a store's files: a folder, or a bucket; and what holds single ones."""

from __future__ import annotations

from . import uploads
from .buckets import Bucket
from .errors import StoreError
from .folders import Folder
from .locations import Location, S3Path
from .whole import is_there, whole_file

Home = Folder | Bucket


def home(where: Location) -> Home:
    """The home at a place; nothing is looked up yet."""
    return Bucket(where) if isinstance(where, S3Path) else Folder(where)


def is_taken(where: Location) -> bool:
    """Whether anything has this name."""
    return uploads.is_taken(where) if isinstance(where, S3Path) else is_there(where)


def replace(where: Location, data: bytes) -> None:
    """Write a small file in the place of an older one; there is always a whole one."""
    if isinstance(where, S3Path):
        Bucket(where.parents[0]).write(where.name, data)
        return
    with whole_file(where, overwrite=True, error=StoreError) as part:
        part.write_bytes(data)


def holds_store(where: Location) -> bool:
    """Whether a store was made at a place; so it may be, where that cannot be found out."""
    found = Bucket(where, is_quick=True) if isinstance(where, S3Path) else Folder(where)
    try:
        return found.read("frieze/run.json") is not None
    except OSError:  # a StoreError is one
        return True
