"""What holds a store's files: a folder, or a bucket."""

from __future__ import annotations

from .buckets import Bucket
from .errors import StoreError
from .folders import Folder
from .locations import Location, S3Path

Home = Folder | Bucket


def home(where: Location) -> Home:
    """The home at a place; nothing is looked up yet."""
    return Bucket(where) if isinstance(where, S3Path) else Folder(where)


def holds_store(where: Location) -> bool:
    """Whether a store was made at a place, as far as can be found out."""
    try:
        return home(where).read("frieze/run.json") is not None
    except (StoreError, OSError):
        return False
