"""Folders for unfinished work: gone when it ends, and removed by a later process if it is killed.

Whose a folder is says the file `owner` in it, which its process keeps locked (flock) for as long
as it lives. The lock ends with the process, however that ends; so what is not locked is nobody's.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OWNER = "owner"
# Locks of a network file system may hold on one host alone: another host's folder must be old.
FOREIGN_SECONDS = 7 * 86400.0
LONGEST = 200  # bytes of a name: a file's may have 255

# Of this process, by its number. A folder is here before it is made, and until it is gone: wherever
# an interruption comes, somebody knows of it.
_own: dict[Path, int] = {}

_NAME = re.compile(r"\..+\.[0-9a-f]{8}\.part", re.DOTALL)


@contextmanager
def scratch(parent: Path | None = None, name: str = "frieze") -> Iterator[Path]:
    """Yield an empty folder in `parent` (None: where temporary files go), removed at the end.

    Its name is hidden and begins with `name`. Folders of processes that are gone are removed from
    `parent` first. Raises OSError where none can be made.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    remove_abandoned(parent)
    folder, owner = _owned(parent, name)
    try:
        yield folder
    finally:
        _drop(folder)
        os.close(owner)


def remove_own() -> None:
    """Remove what this process fills, which ends without having unwound."""
    for folder, pid in list(_own.items()):
        if pid == os.getpid():  # what came by a fork is the parent's
            _remove(folder)


atexit.register(remove_own)


def remove_abandoned(parent: Path) -> None:
    """Remove the folders in `parent` whose process is gone; what cannot be removed stays."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(parent)):
            if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                _remove_if_abandoned(Path(entry.path))


def _owned(parent: Path, name: str) -> tuple[Path, int]:
    """A new folder, and the descriptor that holds its lock."""
    if len(os.fsencode(name)) > LONGEST:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    while True:
        folder = parent / f".{name}.{secrets.token_hex(4)}.part"
        _own[folder] = os.getpid()
        try:
            folder.mkdir(mode=0o700)
        except OSError:  # it is another's, or nobody's
            del _own[folder]
            raise
        try:
            owner = _marked(folder)
        except FileNotFoundError:  # somebody took it for an abandoned one before it was marked
            _drop(folder)
            continue
        except BaseException:
            _drop(folder)
            raise
        return folder, owner


def _marked(folder: Path) -> int:
    """The descriptor that holds the lock of a new folder; FileNotFoundError if that is gone."""
    owner = os.open(folder / OWNER, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        # On a file system without locks it is never removed but by this process.
        with contextlib.suppress(OSError):
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.stat(folder / OWNER)
        os.write(owner, f"{os.getpid()} {socket.gethostname()} {_boot()}\n".encode())
    except BaseException:
        os.close(owner)
        raise
    return owner


def _drop(folder: Path) -> None:
    _remove(folder)
    _own.pop(folder, None)


def _remove_if_abandoned(folder: Path) -> None:
    try:
        owner = os.open(folder / OWNER, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        with contextlib.suppress(OSError):
            folder.rmdir()  # fails if there is anything in it
        return
    except OSError:
        return
    try:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_near(os.read(owner, 1000)) or _age(owner) > FOREIGN_SECONDS:
            _remove(folder)
    except OSError:
        return
    finally:
        os.close(owner)


def _is_near(about: bytes) -> bool:
    """Whether the owner was a process of this machine, whose locks hold here."""
    words = about.decode("utf-8", "replace").split()
    return len(words) == 3 and (words[1] == socket.gethostname() or words[2] == _boot())


def _boot() -> str:
    """The running kernel's name of itself: the same in all containers of a machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


def _age(descriptor: int) -> float:
    return time.time() - os.fstat(descriptor).st_mtime


def _remove(folder: Path) -> None:
    """All in it, then the mark, then itself: cut off anywhere, it is known for what it is."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.name != OWNER:
                os.unlink(entry.path)
        (folder / OWNER).unlink(missing_ok=True)
        folder.rmdir()
