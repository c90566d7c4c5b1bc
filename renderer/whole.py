"""A file or folder appears under its name whole or not at all, and never over a stranger's.

The work is done under a hidden name beside the target, then renamed.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import FriezeError


@contextmanager
def whole_file(path: Path, *, overwrite: bool, error: type[FriezeError]) -> Iterator[Path]:
    """Yield a path to write; it takes its name when the block ends well, else it is removed."""
    check_place(path, error)
    if path.is_dir():
        raise error(f"{path} is a folder; use another name")
    if path.exists() and not overwrite:
        raise error(f"{path} is already there; use --overwrite or another name")
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        if path.exists() and not overwrite:
            raise error(f"{path} appeared meanwhile; use --overwrite or another name")
        os.replace(part, path)
    except OSError as problem:
        if isinstance(problem, FriezeError):
            raise
        raise error(f"{path} cannot be written: {problem.strerror or problem}") from problem
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(
    path: Path, *, overwrite: bool, is_ours: Callable[[Path], bool], error: type[FriezeError]
) -> Iterator[Path]:
    """Yield an empty folder to fill; it takes its name when the block ends well.

    What it replaces is set aside first and deleted last; `recover` brings it back if the process
    is killed between the two renames.
    """
    recover(path)
    check_place(path, error)
    check_replaceable(path, overwrite=overwrite, is_ours=is_ours, error=error)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir()
        yield part
        if path.exists():
            os.replace(path, _aside(path))
        os.replace(part, path)
    except OSError as problem:
        if isinstance(problem, FriezeError):
            raise
        raise error(f"{path} cannot be written: {problem.strerror or problem}") from problem
    finally:
        shutil.rmtree(part, ignore_errors=True)
        recover(path)


def recover(path: Path) -> None:
    """Bring back a folder set aside by a process killed before it was replaced; else drop it."""
    aside = _aside(path)
    if aside.is_dir() and not path.exists():
        os.replace(aside, path)
    shutil.rmtree(aside, ignore_errors=True)


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
    if not path.exists() and not path.is_symlink():
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
            f"{path} needs up to {needed / 2**30:.2f} GiB and its disk has {free / 2**30:.2f} GiB "
            "free; free some, use another disk or a smaller picture"
        )


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else 0
