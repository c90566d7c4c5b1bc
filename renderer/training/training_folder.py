"""The folder of a training: what renders take as it is by now, and beside it what going on needs.

That lies in `training/`, or beside a file NAME.safetensors in `NAME.training/`: the recipe, the
pictures' names, states, latents, log and samples. It may be deleted when the training is over.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..checkpoints.weight_files import PICKLES
from ..errors import SpecError, StoreError, shown
from ..files.atomic import check_place
from ..files.location import S3Path, location
from .recipe import TrainingRecipe

WORK = "training"
RECIPE, PICTURES, PROGRESS, LOG, LOCK = (
    *("recipe.json", "pictures.json", "progress.json"),
    *("log.csv", "lock"),
)
# Who names these wants a file of weights, and nobody a folder.
FILES = frozenset({*PICKLES, ".safetensors", ".gguf", ".onnx", ".png", ".jpg"})
COLUMNS = ("stage", "step", "seconds", "loss")


class TrainingFolder:
    """A place for a training: nothing yet, or one that was begun.

    `suffix` is that of a file which may be asked for in the place of a folder.
    """

    def __init__(self, out: str, suffix: str | None = None) -> None:
        """Raises `SpecError` for a place in a bucket."""
        place = location(out, SpecError)
        if isinstance(place, S3Path):
            raise SpecError(f"out {out!r} is in a bucket; a folder of a file system works")
        self.path = place.absolute()
        self.is_file = suffix is not None and self.path.suffix == suffix
        self.work = self.path.with_suffix(f".{WORK}") if self.is_file else self.path / WORK

    @property
    def folder(self) -> Path:
        """Where what is made lies, and the folder of work."""
        return self.path.parent if self.is_file else self.path

    @property
    def is_begun(self) -> bool:
        """Whether a training has left its recipe here."""
        return (self.work / RECIPE).exists()

    def check(self, recipe: TrainingRecipe, about: Mapping[str, Any], *, continued: bool) -> None:
        """Raise `StoreError` unless this recipe may begin here, or go on with what was begun.

        `about` are digests of what the recipe names.
        """
        path = self.path
        if self.is_file and not self.is_begun:
            self._check_file()
        elif self.is_begun and os.path.isdir(self.work):
            self._check_begun(recipe, about, continued)
        elif not os.path.lexists(path):
            if path.suffix in FILES:
                raise StoreError(f"{path} would be a folder by the name of a file; use another")
            check_place(path, StoreError)
        elif not path.is_dir():
            raise StoreError(f"{path} is a file; use another name")
        elif not os.access(path, os.W_OK | os.X_OK):
            raise StoreError(f"{path} cannot be written; use another name")
        elif any(path.iterdir()):
            raise StoreError(f"{path} holds something else than a training; use another name")

    def _check_file(self) -> None:
        for path in (self.path, self.work):
            if os.path.lexists(path):
                raise StoreError(f"{path} is there already; use another name")
        check_place(self.path, StoreError)

    def _check_begun(
        self, recipe: TrainingRecipe, about: Mapping[str, Any], continued: bool
    ) -> None:
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise StoreError(f"{self.folder} cannot be written; use another name")
        if not continued:
            raise StoreError(
                f"{self.path} has a training that was begun; --continue goes on with it, or use "
                "another name"
            )
        there = self._read(RECIPE)
        changed = recipe.differences(there.get("recipe") or {})
        changed += [f"{name} is another" for name in about if about[name] != there.get(name)]
        if changed:
            raise StoreError(
                f"{self.path} was begun otherwise ({'; '.join(changed)}); give what it was begun "
                "with, or another name"
            )

    def begin(self, recipe: TrainingRecipe, about: Mapping[str, Any]) -> None:
        """Make the folder and write the recipe, unless it is there."""
        self.work.mkdir(parents=True, exist_ok=True)
        if not self.is_begun:
            self._write(RECIPE, {"recipe": recipe.model_dump(mode="json"), **about})

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else trains here meanwhile; raises `StoreError` if somebody does."""
        with open(self.work / LOCK, "a", encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreError(
                    f"{self.path} is being trained by another process; wait for it, stop it, or "
                    "use another name"
                ) from None
            except OSError:
                pass  # this file system has no locks
            yield

    def check_pictures(self, identity: Sequence[Any]) -> None:
        """Raise `StoreError` where pictures are others than those it was begun with, if it was."""
        if not (self.work / PICTURES).exists():
            return
        there = self._read(PICTURES)
        if there == list(identity):
            return
        new = [f"{shown(each[0])} is new" for each in identity if each not in there]
        gone = [f"{shown(each[0])} is gone or another" for each in there if each not in identity]
        raise StoreError(
            f"{self.path} was begun with {len(there)} pictures, and now there are "
            f"{len(identity)}: {', '.join([*gone[:1], *new[:1]])}; give what it was begun with, "
            "or another name"
        )

    def keep_pictures(self, identity: Sequence[Any]) -> None:
        """Write down what the pictures are known by, when all their latents are there."""
        self._write(PICTURES, list(identity))

    def progress(self) -> dict[str, float]:
        """Seconds spent in each stage, by its name."""
        return self._read(PROGRESS) if (self.work / PROGRESS).exists() else {}

    def keep_progress(self, seconds: Mapping[str, float]) -> None:
        """Write them, whole or not at all."""
        self._write(PROGRESS, dict(seconds))

    def log(self, row: Sequence[Any]) -> None:
        """Add a row to the log; rows of the stage from this step on, which are undone, go."""
        path = self.work / LOG
        before = path.read_text(encoding="ascii") if path.exists() else ",".join(COLUMNS)
        rows = list(csv.reader(io.StringIO(before)))
        kept = [r for r in rows if r[0] != row[0] or int(r[1]) < int(row[1])]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*kept, row])
        self._replace(LOG, text.getvalue())

    def _read(self, name: str) -> Any:
        path = self.work / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise StoreError(f"{path} cannot be read ({error}); use another name") from None

    def _write(self, name: str, values: Any) -> None:
        self._replace(name, json.dumps(values, indent=1))

    def _replace(self, name: str, text: str) -> None:
        part = self.work / f"{name}.part"
        part.write_text(text, encoding="utf-8")
        os.replace(part, self.work / name)
