"""Where a store or a file lies: a path of a file system, or s3://BUCKET/NAME.

What is asked for is taken at its word: no other scheme, no part that is empty or dotted.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from ..errors import FriezeError, shown
from ..spec.values import is_text

# The standard variables that say how a bucket is reached, and as whom.
VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_SKIP_SIGNATURE",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
)
Access = tuple[tuple[str, str], ...]  # of those variables, the ones that are set

# Bytes of a path, of one of its parts, and of a name beside which `whole.py` makes a hidden one.
MOST_PATH, MOST_PART, MOST_NAME = 4095, 255, 240
MOST_KEY = 1024  # of an object in a bucket

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# One slash as well: pathlib makes it of two.
_S3 = re.compile(r"s3:/{1,2}(?!/)", re.IGNORECASE)


@dataclass(frozen=True)
class S3Path:
    """An address in a bucket, with as much of pathlib's manners as a store needs.

    `access` is how another process reached the bucket, for one that may know less (None: this
    one's environment says). It is in memory only: never printed, compared or written.
    """

    bucket: str
    key: str
    access: Access | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    def __truediv__(self, name: str | PurePosixPath) -> S3Path:
        return replace(self, key=f"{self.key}/{name}")

    @property
    def name(self) -> str:
        """The part after the last slash."""
        return PurePosixPath(self.key).name

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.key).stem

    @property
    def suffix(self) -> str:
        """What follows the name's last dot, with the dot."""
        return PurePosixPath(self.key).suffix

    @property
    def parents(self) -> tuple[S3Path, ...]:
        """The addresses that it lies in, the nearest first; the bucket itself is none."""
        above = PurePosixPath(self.key).parents
        return tuple(replace(self, key=str(key)) for key in above if key.name)

    def relative_to(self, other: S3Path) -> PurePosixPath:
        """Its key from another address on; raises ValueError if it does not lie there."""
        if self.bucket != other.bucket:
            raise ValueError(f"{self} does not lie in {other}")
        return PurePosixPath(self.key).relative_to(other.key)

    def with_name(self, name: str) -> S3Path:
        """Another address beside this one."""
        return replace(self, key=str(PurePosixPath(self.key).with_name(name)))

    def with_suffix(self, suffix: str) -> S3Path:
        """The same address with another suffix."""
        return replace(self, key=str(PurePosixPath(self.key).with_suffix(suffix)))

    def absolute(self) -> S3Path:
        """Itself: an address in a bucket depends on no working folder."""
        return self


Location = Path | S3Path


def location(address: str | os.PathLike[str] | S3Path, error: type[FriezeError]) -> Location:
    """The place at an address; raises `error` where it is none."""
    if isinstance(address, S3Path):
        return address
    text = os.fspath(address)
    if fault := unnameable(text):
        raise error(f"{shown(text)}: {fault}")
    if start := _S3.match(text):
        return _in_bucket(text, text[start.end() :], error)
    if scheme := _SCHEME.match(text):
        raise error(
            f"{text}: no addresses of {scheme[1]}://; a path works, or s3://bucket/name.zarr"
        )
    return Path(text)


def unnameable(path: str) -> str | None:
    """Why no file can have this path, whatever is there; None where one can."""
    if not is_text(path):
        return "a name with bytes that are no UTF-8, or zero; rename it"
    if (size := len(path.encode())) > MOST_PATH:
        return f"a path of {size} bytes; at most {MOST_PATH} work"
    size = max(len(part.encode()) for part in path.split("/"))
    return f"a name of {size} bytes; at most {MOST_PART} work" if size > MOST_PART else None


def output(address: str | os.PathLike[str] | S3Path, error: type[FriezeError]) -> Location:
    """The absolute place of a file to be made; raises `error` where none can be."""
    where = location(address, error).absolute()
    if where.name in ("", ".."):
        raise error(f"{shown(str(address))} is a folder; give a file's name, as picture.zarr")
    if (size := len(where.name.encode())) > MOST_NAME:
        raise error(f"{where.name}: a name of {size} bytes; at most {MOST_NAME} work")
    return where


def real(where: Location) -> Location:
    """The place itself, links followed; none lead out of a bucket."""
    return where if isinstance(where, S3Path) else Path(os.path.realpath(where))


def carried(where: Location) -> Location:
    """The place as workers elsewhere are to be told of it: with this process's access to it.

    It travels as an argument of a call. In an actor's environment Ray would write it into its
    logs and show it on its dashboard.
    """
    if isinstance(where, Path) or where.access is not None:
        return where
    return replace(where, access=own_access())


def own_access() -> Access:
    """What this process's environment says of buckets."""
    return tuple((name, os.environ[name]) for name in VARIABLES if os.environ.get(name))


def _in_bucket(text: str, rest: str, error: type[FriezeError]) -> S3Path:
    bucket, _, key = rest.partition("/")
    key = key.rstrip("/")
    if not _BUCKET.fullmatch(bucket) or not key:
        raise error(f"{text} names no place in a bucket; s3://bucket/name.zarr works")
    if any(part in ("", ".", "..") or not part.isprintable() for part in key.split("/")):
        raise error(
            f"{shown(text)}: parts that are empty, dotted or unprintable lead nowhere; leave out"
        )
    if (size := len(key.encode())) > MOST_KEY:
        raise error(f"{shown(text)}: a key of {size} bytes; at most {MOST_KEY} work")
    return S3Path(bucket, key)
