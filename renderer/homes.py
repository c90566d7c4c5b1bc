"""What holds a store's files: a folder, or a bucket."""

from __future__ import annotations

from .buckets import Bucket
from .folders import Folder
from .locations import Location, S3Path

Home = Folder | Bucket


def home(where: Location) -> Home:
    """The home at a place; nothing is looked up yet."""
    return Bucket(where) if isinstance(where, S3Path) else Folder(where)


def holds_store(where: Location) -> bool:
    """Whether a store was made at a place; so it may be, where that cannot be found out."""
    found = Bucket(where, is_quick=True) if isinstance(where, S3Path) else Folder(where)
    try:
        return found.read("frieze/run.json") is not None
    except OSError:  # a StoreError is one
        return True
