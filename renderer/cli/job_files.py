"""What goes with a job: this installation's code, and files that its command names.

The code is two folders for Ray's `py_modules`: the packages, and what `importlib.metadata` reads.
Ray would install a wheel there with pip, all its dependencies with it, over the cluster's own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from ..checkpoints import decoder
from ..checkpoints.shipped import SHIPPED
from ..errors import SpecError
from ..files.scratch import scratch
from ..input_files import fault
from ..spec.render_spec import RenderSpec

PACKAGES = ("renderer", "cluster", "kernels", "configs")
MOST_BYTES = 512 * 2**20  # Ray's own limit
MOST_NAMED = 3  # files in an error, the largest


@dataclass(frozen=True)
class JobFiles:
    """Folders of modules, and the folder the job starts in if there are files for it."""

    modules: tuple[Path, ...]
    folder: Path | None


@contextmanager
def packed(files: Iterable[str]) -> Iterator[JobFiles]:
    """The package of these files, for as long as it takes to send it."""
    with scratch(name="frieze-job") as root:
        modules = _code(root / "code")
        names = list(files)
        for name in names:
            target = root / "files" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if Path(name).is_dir() else shutil.copy
            copy(name, target)
        yield JobFiles(modules, root / "files" if names else None)


def files_of(spec: RenderSpec, preset: str | None = None) -> list[tuple[str, str]]:
    """(flag, name) of every file or folder that a render reads."""
    named: list[tuple[str, str | None]] = []
    own = spec.decoder == decoder.OWN
    named += [("--preset", preset)] if preset and preset.endswith((".yaml", ".yml")) else []
    named += [("--init", spec.init), ("--image", spec.image), ("--mask", spec.mask)]
    named += [("--controlnet", name) for name in spec.controlnet]
    named += [("--control", name) for name in spec.control]
    named += [("PICTURE", spec.upscale), ("--decoder", None if own else spec.decoder)]
    named += [("--edit", each.mask) for each in spec.edit]
    named += [("--lora", str(each.path)) for each in spec.lora]
    named += [("--lora-2", str(each.path)) for each in spec.lora_2]
    named += [("--stages", str(each.path)) for s in spec.stages or () for each in s.loras]
    if spec.model not in SHIPPED and (os.path.exists(spec.model) or spec.model.startswith(".")):
        named.append(("--model", spec.model))
    return [(flag, name) for flag, name in named if name]


def local_files(named: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Of (flag, name), the names that are relative paths: they are here, and go with the job.

    Absolute ones are taken to be on storage that every node sees. Raises `SpecError` for one that
    is missing, that leaves this folder, or where all together are too large.
    """
    relative = [(flag, name) for flag, name in named if not _is_everywhere(name)]
    for flag, name in relative:
        if ".." in Path(name).parts:
            raise SpecError(f"{flag} {name}: a job takes files of this folder with it, none above")
        if not os.path.exists(name):
            raise SpecError(
                f"{flag} {name} is not here; give a file of this folder, which goes with the job, "
                "or an absolute path that every node sees"
            )
        if not os.path.isdir(name) and (why := fault(name)) is not None:
            raise SpecError(f"{flag}: {why}; a file or folder goes with the job")
    sizes = {name: _size(Path(name)) for _, name in relative}
    if (total := sum(sizes.values())) > MOST_BYTES:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:MOST_NAMED]
        others = f" and {len(sizes) - len(largest)} more" if len(sizes) > len(largest) else ""
        raise SpecError(
            f"{', '.join(largest)}{others}: {total / 2**20:.0f} MiB is more than the "
            f"{MOST_BYTES // 2**20} MiB that go with a job; give an absolute path that every node "
            "sees"
        )
    return tuple(sizes)


def check_reachable(flag: str, path: str) -> None:
    """Raises `SpecError` for a path that means something in a folder of one machine only."""
    if not _is_everywhere(path):
        raise SpecError(
            f"{flag} {path}: a job starts in a folder that goes away with it; give an absolute "
            "path on storage that every node sees"
        )


def _is_everywhere(path: str) -> bool:
    return Path(path).is_absolute() or "://" in path or path.startswith("~")


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files if file.is_file())


def _code(root: Path) -> tuple[Path, ...]:
    for name in PACKAGES:
        spec = find_spec(f"frieze.{name}")
        assert spec is not None
        assert spec.submodule_search_locations
        source = Path(next(iter(spec.submodule_search_locations)))
        ignored = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(source, root / "frieze" / name, ignore=ignored)
    about = metadata.distribution("frieze")
    folder = root / f"frieze-{about.version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(about.read_text("METADATA") or "", encoding="utf-8")
    return root / "frieze", folder
