"""Finished files on their way into a bucket, where nothing can be renamed.

A file appears whole or not at all: the server joins its parts last. Of a folder's objects the one
without which nobody takes it for whole goes last, and comes first where an old one is replaced.
Of two processes that send to one name, one is refused: a lease says who may.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from ..errors import ExportError, StoreError
from ..files import lease, s3
from ..files.bucket import Bucket, is_taken
from ..files.location import S3Path

PART_BYTES = 16 * 2**20
MOST_PARTS = 9000  # S3 takes 10000 of one file
# Parts in flight: each is in memory.
WIDTH = 4

_sending: set[str] = set()  # reserved by this process
_turn = threading.Lock()


class FolderFormat(Protocol):
    """An export that makes a folder: the file without which it is not whole, names of the others.

    `is_ours` tells an earlier export by all names at its top and by that file's bytes.
    """

    last: str
    others: re.Pattern[str]
    is_ours: Callable[[Set[str], bytes | None], bool]


def check_file(where: S3Path, *, overwrite: bool) -> None:
    """Raise unless a file may be put there, `ExportError` or `StoreError`; leaves nothing."""
    if not overwrite and is_taken(where):
        raise ExportError(f"{where} is already there; use --overwrite or another name")
    with _reserved(where):  # the right to write shows by writing
        pass


def check_folder(where: S3Path, kind: FolderFormat, *, overwrite: bool) -> None:
    """Raise unless a folder may be put there, as `check_file` does; one half sent may go."""
    bucket = Bucket(where, is_quick=True)
    names, about = bucket.names(), bucket.read(kind.last)
    is_leased = "frieze" in names and lease.is_leased_only(bucket)
    names -= {"frieze"} if is_leased else set()
    is_half_sent = is_leased and all(map(kind.others.fullmatch, names))
    if names and not is_half_sent:
        if not kind.is_ours(names, about):
            raise ExportError(f"{where} holds what Frieze did not make; use another name")
        if not overwrite:
            raise ExportError(f"{where} is already there; use --overwrite or another name")
    check_file(where, overwrite=True)


def send_file(source: Path, where: S3Path, *, overwrite: bool) -> None:
    """Put a file there, whole; raises `ExportError` where one appeared meanwhile."""
    with contextlib.nullcontext() if overwrite else _reserved(where):
        _send_file(source, where, overwrite=overwrite)


def _send_file(source: Path, where: S3Path, *, overwrite: bool) -> None:
    import obstore
    from obstore.exceptions import AlreadyExistsError

    store, size = s3.client(where.bucket, where.access), source.stat().st_size
    taken = f"{where} appeared meanwhile; use --overwrite or another name"
    if size > PART_BYTES:
        part = max(PART_BYTES, -(-size // MOST_PARTS))
        pieces = _pieces(source, part, None if overwrite else (where, taken))
        with s3.told(where):
            obstore.put(
                store, where.key, pieces, use_multipart=True, chunk_size=part, max_concurrency=WIDTH
            )
        return
    data, mode = source.read_bytes(), "overwrite" if overwrite else "create"
    more: dict[str, Any] = {"mode": mode, "use_multipart": False}
    try:
        with s3.told(where):
            obstore.put(store, where.key, data, **more)
    except AlreadyExistsError:
        # Our own request, sent again because its answer was lost?
        with s3.told(where):
            found = bytes(obstore.get(store, where.key).bytes())
        if found != data:
            raise ExportError(taken) from None


def send_folder(source: Path, where: S3Path, kind: FolderFormat, *, overwrite: bool) -> None:
    """Put a folder's files there, the last at the end; an old one is gone from the beginning on.

    Others that would write there are kept off by a lease, which also marks what was left half sent.
    """
    bucket = Bucket(where)
    lease.claim(bucket)
    try:
        check_folder(where, kind, overwrite=overwrite)
        bucket.remove([kind.last])
        lease.clear(bucket)
        names = [file.relative_to(source).as_posix() for file in source.rglob("*")]
        files = [name for name in names if (source / name).is_file() and name != kind.last]
        bucket.each(lambda name: bucket.send(name, source / name), files)
        bucket.send(kind.last, source / kind.last)
    except ExportError:
        raise
    except BaseException:
        with contextlib.suppress(StoreError):
            lease.clear(bucket)
        raise
    finally:
        lease.release(bucket)


@contextlib.contextmanager
def _reserved(where: S3Path) -> Iterator[None]:
    """Keep all others from sending a file there; raises `ExportError` where one is at it.

    A condition on the last request would do, but clients have none for a file in parts.
    """
    bucket = Bucket(where.with_name(f".{where.name}.sending"))
    name, busy = str(bucket), f"{where} is being written"
    with _turn:
        if name in _sending:  # by another thread, whose lease this would be
            raise ExportError(f"{busy} by this process; use another name")
        _sending.add(name)
    try:
        lease.claim(bucket, busy)
        yield
    finally:
        lease.release(bucket)
        _sending.discard(name)


def _pieces(source: Path, size: int, unless: tuple[S3Path, str] | None) -> Iterator[bytes]:
    """A file's bytes; an error at their end keeps the server from joining them."""
    with source.open("rb") as file:
        while data := file.read(size):
            yield data
    if unless is not None:
        # obstore asks for bytes in a thread where it takes no requests.
        with ThreadPoolExecutor(1) as apart:
            if apart.submit(is_taken, unless[0]).result():
                raise ExportError(unless[1])
