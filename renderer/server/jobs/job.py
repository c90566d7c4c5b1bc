"""A job: what one request asked for, and what became of it, as one small file in its folder."""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ...errors import StoreError, first_line, line
from ...files.atomic import is_there
from ...files.folder import Folder
from ...files.operations import replace
from ...spec.values import ValuesError, from_json
from ...store.run_record import is_store

Place = tuple[int, int, int, float, str]
JobState = Literal["queued", "in_progress", "completed", "failed", "cancelled"]
ENDED = frozenset({"completed", "failed", "cancelled"})
RECORD = "job.json"
SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tif"}
_ID = re.compile(r"job_[0-9a-f]{32}")
# What a server writes into a job's folder: records, uploads, pictures, stores, and parts of them.
_OWN = re.compile(
    r"job\.json|frieze|image\.(png|jpg|webp)|mask\.png|[0-9]{1,2}\.(zarr|png|jpg|webp|tif)"
    r"|\..+\.[0-9a-f]{8}\.part"
)
_FILE = re.compile(r"file_([0-9a-f]{32})_([0-9]{1,2})")


class Job(BaseModel):
    """What was asked for and how it stands; times are seconds since the epoch.

    `items` are those of a batch, `told` what an answer repeats, `owner` says whose token it was,
    `key` is the digest of an Idempotency-Key and `body` that of what came with it. `number` counts
    the jobs of a folder, which no clock does that may be set back; `turn` is its owner's among
    others of its priority.
    """

    model_config = ConfigDict(extra="forbid")

    id: str
    kind: Literal["image_generation", "image_edit"]
    model: str
    owner: str
    created: float
    priority: int
    number: int = 0
    turn: int = 0
    items: list[dict[str, Any]]
    told: dict[str, Any]
    is_url: bool = False
    key: str = ""
    body: str = ""
    state: JobState = "queued"
    ended: float | None = None
    seconds: float = 0.0
    size: tuple[int, int] = (0, 0)
    error: str | None = None
    is_cancelled: bool = False  # it is at work, and is to stop

    @property
    def has_ended(self) -> bool:
        """Whether nothing is drawn for it any more."""
        return self.state in ENDED

    @property
    def place(self) -> Place:
        """Where it stands in the queue: the least is drawn first."""
        return -self.priority, self.turn, *self.age

    @property
    def age(self) -> tuple[int, float, str]:
        """Its place by when it came, the oldest first."""
        return self.number, self.created, self.id

    @property
    def end_of_turn(self) -> int:
        """Its owner's next turn: each picture of a job takes one."""
        return self.turn + len(self.items)

    @property
    def files(self) -> list[str]:
        """The ids of its pictures, in their order."""
        return [f"file_{self.id[4:]}_{index}" for index in range(len(self.items))]

    @property
    def suffix(self) -> str:
        """Of its pictures."""
        return SUFFIXES[str(self.told["output_format"])]

    def as_json(self) -> dict[str, Any]:
        """The object that clients are told of it."""
        done = self.state == "completed"
        error = None if self.error is None else {"code": "render_failed", "message": self.error}
        return {
            "id": self.id,
            "object": "job",
            "type": self.kind,
            "status": self.state,
            "created_at": int(self.created),
            "completed_at": None if self.ended is None else int(self.ended),
            "model": self.model,
            "priority": self.priority,
            "n": len(self.items),
            "size": "x".join(map(str, self.size)),
            "seconds": round(self.seconds, 3),
            "error": error,
            "files": self.files if done else [],
            **self.told,
        }


def new_id() -> str:
    """The id of a job, which nobody can guess."""
    return f"job_{secrets.token_hex(16)}"


def job_of_file(file_id: str) -> tuple[str, int] | None:
    """(id of the job, number of the picture) of a file's id; None where it is none."""
    found = _FILE.fullmatch(file_id)
    return (f"job_{found[1]}", int(found[2])) if found else None


class JobFolder:
    """The folder of a server: a folder for each job, with its record, uploads and pictures."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def of(self, job: Job) -> Path:
        """A job's folder."""
        return self.root / job.id

    def picture(self, job: Job, index: int) -> Path | None:
        """The file of a picture that is there; None where it is not, or leads elsewhere."""
        if not 0 <= index < len(job.items):
            return None
        path = self.of(job) / f"{index}{job.suffix}"
        is_plain = path.is_file() and not path.is_symlink() and not path.parent.is_symlink()
        return path if is_plain else None

    def make(self, job_id: str) -> Path:
        """An empty folder for a job's uploads; it counts from when its record is written."""
        path = self.root / job_id
        path.mkdir(mode=0o700)
        return path

    def write(self, job: Job) -> None:
        """Write a job's record over; there is always a whole one."""
        replace(self.of(job) / RECORD, job.model_dump_json(indent=1).encode())

    def discard(self, job_id: str) -> list[str]:
        """Delete a job's folder: its record first, so that nothing half deleted counts.

        Returns the names in it that are not the server's, which stay, and the folder with them.
        """
        folder = self.root / job_id
        (folder / RECORD).unlink(missing_ok=True)
        with suppress(OSError):
            for path in folder.iterdir():
                if _OWN.fullmatch(path.name) and not path.is_symlink():
                    _remove(path)
            folder.rmdir()
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def jobs(self) -> Iterator[Job | StoreError]:
        """All jobs that are here, or what is wrong with their records.

        What was being made or deleted when a process was killed is deleted.
        """
        for path in sorted(self.root.iterdir()):
            if not _ID.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
                continue
            if not is_there(path / RECORD):
                if others := self.discard(path.name):
                    held = line(", ".join(others))
                    yield StoreError(f"{path} is no job's any more, and holds {held}")
                continue
            try:
                yield self._read(path)
            except StoreError as error:
                yield error

    def _read(self, path: Path) -> Job:
        try:
            text = (Folder(path).read(RECORD) or b"").decode()
            job = Job.model_validate(from_json(text))
            if job.id != path.name:
                raise ValuesError(f"it is of {job.id}")
        except ValidationError as error:
            raise StoreError(f"{path / RECORD}: {first_line(error)}; delete {path}") from None
        except (ValuesError, UnicodeDecodeError, OSError) as error:
            raise StoreError(f"{path / RECORD} cannot be read: {error}; delete {path}") from None
        return job


def _remove(path: Path) -> None:
    """Delete a file or folder of the server's; a store first takes a name that is none."""
    with suppress(OSError):
        if path.suffix == ".zarr":
            if not is_store(path):
                return
            path = path.rename(path.with_name(f".{path.name}.{secrets.token_hex(4)}.part"))
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def now() -> float:
    """Seconds since the epoch."""
    return round(time.time(), 3)
