"""A file or folder appears under its name whole or not at all, and never over a stranger's.

The work is done in a scratch folder beside the target, then given its name. Without `overwrite`
that step itself fails where the name is taken by then, so that of two writers one is refused.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import FriezeError
from ..spec.units import scaled
from .scratch import scratch

# Of renameat2(2).
_HERE, _NOREPLACE, _EXCHANGE = -100, 1, 2
_UNKNOWN = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def finish(part: Path, path: Path) -> None:
    """Give a finished file its name, in the place of an old one, and the mode of a new file.

    What libraries write is their own user's alone, so that nobody else could draw with it.
    """
    with scratch(part.parent, part.name) as folder, (folder / "new").open("x") as new:
        part.chmod(os.fstat(new.fileno()).st_mode & 0o777)
    os.replace(part, path)


@contextmanager
def whole_file(path: Path, *, overwrite: bool, error: type[FriezeError]) -> Iterator[Path]:
    """Yield a path to write; it takes its name when the block ends well, else it is removed."""
    check_place(path, error)
    if path.is_dir():
        raise error(f"{path} is a folder; use another name")
    if is_there(path) and not overwrite:
        raise error(f"{path} is already there; use --overwrite or another name")
    with _told(path, error), scratch(path.parent, path.name) as folder:
        part = folder / path.name
        yield part
        _settle(part)
        place_file(part, path, overwrite=overwrite, error=error)


def place_file(part: Path, path: Path, *, overwrite: bool, error: type[FriezeError]) -> None:
    """Give a finished file its name in the place of `part`; raises if that is taken and must stay.

    However late: the name is made and found free in one step.
    """
    if overwrite:
        os.replace(part, path)
    else:
        try:
            os.link(part, path, follow_symlinks=False)
        except FileExistsError:
            if not os.path.samefile(part, path):  # else a process was killed after its link
                raise _appeared(path, error) from None
        except OSError:  # no hard links on this file system
            _rename_new(part, path, error)
        part.unlink(missing_ok=True)
    _settle(path.parent)


@contextmanager
def whole_folder(
    path: Path, *, overwrite: bool, is_ours: Callable[[Path], bool], error: type[FriezeError]
) -> Iterator[Path]:
    """Yield an empty folder to fill; it takes its name when the block ends well.

    What it replaces changes places with it, where the file system can do that. Elsewhere it is
    set aside and deleted last; `recover` brings it back if the process is killed between the two
    renames.
    """
    recover(path)
    check_place(path, error)
    check_replaceable(path, overwrite=overwrite, is_ours=is_ours, error=error)
    with _told(path, error), scratch(path.parent, path.name) as folder:
        part = folder / path.name
        part.mkdir()
        yield part
        if overwrite and is_there(path):
            check_replaceable(path, overwrite=True, is_ours=is_ours, error=error)
            _swap(part, path)
        else:
            _rename_new(part, path, error)
        _settle(path.parent)


def recover(path: Path) -> None:
    """Bring back a folder set aside by a process killed before it was replaced; else drop it."""
    aside = _aside(path)
    if aside.is_dir() and not aside.is_symlink() and not path.exists():
        os.replace(aside, path)
    shutil.rmtree(aside, ignore_errors=True)


def is_there(path: Path) -> bool:
    """Whether anything has this name, a link that leads nowhere included."""
    return os.path.lexists(path)


def check_place(path: Path, error: type[FriezeError]) -> None:
    """Raise unless the folder that is to hold `path` exists and can be written."""
    if not path.parent.is_dir():
        raise error(f"{path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise error(f"{path}: the folder {path.parent} cannot be written; choose another")


def check_replaceable(
    path: Path, *, overwrite: bool, is_ours: Callable[[Path], bool], error: type[FriezeError]
) -> None:
    """Raise if `path` holds something that must stay."""
    if not is_there(path):
        return
    if not path.is_dir():
        raise error(f"{path} is a file; use another name")
    if any(path.iterdir()) and not is_ours(path):
        raise error(f"{path} is a folder that Frieze did not make; use another name")
    if not overwrite:
        raise error(f"{path} is already there; use --overwrite or another name")


def check_space(path: Path, needed: int, error: type[FriezeError]) -> None:
    """Raise unless `path`'s disk has `needed` bytes free, counting what is to be replaced."""
    free = shutil.disk_usage(path.parent).free + _size(path)
    if needed > free:
        raise error(
            f"{path} needs up to {scaled(needed, 'B')} and its disk has {scaled(free, 'B')} "
            "free; free some, use another disk or a smaller picture"
        )


@contextmanager
def _told(path: Path, error: type[FriezeError]) -> Iterator[None]:
    """What a disk has against a write, as one of our errors."""
    try:
        yield
    except OSError as problem:
        if isinstance(problem, FriezeError):
            raise
        raise error(f"{path} cannot be written: {problem.strerror or problem}") from problem


def _appeared(path: Path, error: type[FriezeError]) -> FriezeError:
    return error(f"{path} appeared meanwhile; use --overwrite or another name")


def _rename_new(part: Path, path: Path, error: type[FriezeError]) -> None:
    """Rename a file or folder unless the name is taken; raises `error` then."""
    try:
        try:
            renameat2(part, path, _NOREPLACE)
        except OSError as problem:
            if problem.errno not in _UNKNOWN:
                raise
            # Whoever makes the name first has it; a rename then replaces what is empty.
            path.mkdir() if part.is_dir() else path.touch(exist_ok=False)
            os.replace(part, path)
    except OSError as problem:
        if problem.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise _appeared(path, error) from None
        raise


def _swap(part: Path, path: Path) -> None:
    """Put a folder in the place of another, of which nothing is left there."""
    try:
        renameat2(part, path, _EXCHANGE)
    except OSError as problem:
        if problem.errno not in _UNKNOWN:
            raise
        os.replace(path, _aside(path))
        try:
            os.replace(part, path)
        finally:
            recover(path)


def renameat2(old: Path, new: Path, flags: int) -> None:
    """Linux's rename with flags, which Python does not have; OSError as the system says."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if libc.renameat2(_HERE, os.fsencode(old), _HERE, os.fsencode(new), flags) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), os.fspath(new))


def _settle(path: Path) -> None:
    """Return when a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some network file systems know no such thing of a folder
            raise
    finally:
        os.close(descriptor)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else 0
