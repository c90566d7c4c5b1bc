"""Files of a store's folder, which may be a stranger's: regular ones, and nothing that leads away.

A link would have a resume write to, and a report read from, wherever it leads; a FIFO or a device
may hold up whoever opens it.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from ..errors import StoreError
from ..input_files import KINDS


def opener(path: str | os.PathLike[str], flags: int) -> int:
    """What `open` takes to open no link, FIFO or device; raises `StoreError` instead."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link; a FIFO that nobody reads, a socket
            raise StoreError(f"{path} is no regular file") from None
        raise
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # what a folder is good for says `open`
        return descriptor
    os.close(descriptor)
    raise StoreError(f"{path} is no regular file")


def check_tree(folder: Path) -> None:
    """Raise `StoreError` unless all below a folder are regular files and folders."""
    if other := _other(str(folder)):
        path, kind = other
        raise StoreError(
            f"{path} is {kind}; a store holds files and folders alone: put there what it should be"
        )


def _other(folder: str) -> tuple[str, str] | None:
    """The first path below a folder that is something else, and what it is."""
    folders = [folder]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif not entry.is_file(follow_symlinks=False):
                        return entry.path, _kind(entry)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue  # gone meanwhile, or told of where it is read
    return None


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_symlink():
            return f"a link to {os.readlink(entry.path)}"
        return KINDS.get(stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode), "no file")
    except OSError:
        return "no file"
