"""The log of a store: one JSON line per thing that happened, for people and for machines.

PATH/frieze/log.jsonl, older lines in log.1.jsonl and so on; in a bucket log/TIME.jsonl, parts that
are put anew every few seconds. The driver alone writes it, and no render depends on it: what a
resume needs is in the journal. It holds figures and one-line messages, no prompt, no environment,
and nothing that looks like a secret.
"""

from __future__ import annotations

import json
import logging
import math
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..errors import StoreError
from ..files.bucket import Bucket
from ..files.location import Location, S3Path
from ..files.regular_files import opener

NAME = "log.jsonl"
# A picture of 4,000 steps and blocks logs about 1 MiB; only endless resumes come near this.
MOST_BYTES = 8 * 2**20
KEPT = 3
# A part of a log in a bucket, and the seconds until what was added to it is seen.
PART_LINES = 500
PART_SECONDS = 5.0

LOST = "%s cannot be written (%s); the render goes on without it"

_SECRETS = re.compile(
    r"(?<=://)[^/\s@]+(?=@)"  # user:password@ of an address
    r"|\b(?:hf|ghp|gho|sk|xox[abp])[-_][\w-]{8,}"  # tokens that say what they are
    r"|\bAKIA[0-9A-Z]{12,}"
    r"|(?i:(?<=token=)|(?<=password=)|(?<=secret=)|(?<=signature=)|(?<=key=)|(?<=bearer\ ))"
    r"[^\s&;,]+"
)


class RunLog:
    """Lines wait in memory until there is a store to keep them in."""

    def __init__(self) -> None:
        self._waiting: list[str] = []
        self._path: Location | None = None
        self._is_lost = False
        self._part = _Part()

    def write(self, fields: Mapping[str, Any]) -> None:
        """Add one line: the seconds since the epoch, then the fields."""
        line = json.dumps({"time": round(time.time(), 3), **_clean(fields)}) + "\n"
        self._waiting.append(line)
        if self._path is not None:
            self._flush(self._path, is_last=fields.get("event") in ("done", "ended", "failure"))

    def keep(self, store_path: Location) -> None:
        """From now on lines go to the store, whose driver this process must be."""
        self._path = store_path
        self._flush(store_path)

    def leave(self) -> None:
        """There is no store any more."""
        self._path = None

    def _flush(self, store_path: Location, *, is_last: bool = False) -> None:
        """A log that cannot be written is given up: it must not end what it tells of."""
        lines, self._waiting = self._waiting, []
        if self._is_lost:
            return
        if isinstance(store_path, S3Path):
            self._is_lost = not self._part.add(store_path, lines, is_last=is_last)
            return
        path = store_path / "frieze" / NAME
        try:
            _rotate(path)
            with open(path, "ab", opener=opener) as file:
                if file.tell() and not _ends_whole(path):
                    file.write(b"\n")
                file.write("".join(lines).encode("ascii"))
        except OSError as error:
            self._is_lost = True
            logging.getLogger(__name__).warning(LOST, path, error.strerror or error)


class _Part:
    """The last part of a log in a bucket: lines that are put together, for none can be added."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._name = ""
        self._put = 0.0

    def add(self, store_path: S3Path, lines: list[str], *, is_last: bool) -> bool:
        """Put the part anew, unless it was a moment ago; False where that failed."""
        if not self._name or len(self._lines) >= PART_LINES:
            self._name, self._lines = f"frieze/log/{time.time_ns():020}.jsonl", []
        self._lines += lines
        is_full = len(self._lines) >= PART_LINES
        if not (is_last or is_full) and time.monotonic() - self._put < PART_SECONDS:
            return True
        try:
            quick = Bucket(store_path, is_quick=True)
            quick.write(self._name, "".join(self._lines).encode("ascii"))
        except StoreError as error:
            logging.getLogger(__name__).warning(LOST, f"{store_path}/{self._name}", error)
            return False
        self._put = time.monotonic()
        return True


def read(store_path: Location) -> list[dict[str, Any]]:
    """All lines that are left, oldest first; a line torn by a power cut is passed over."""
    if isinstance(store_path, S3Path):
        bucket = Bucket(store_path)
        parts = (bucket.read(name) or b"" for name in sorted(bucket.tags("frieze/log")))
        lines = b"".join(parts).splitlines()
        return [fields for fields in map(_parsed, lines) if fields is not None]
    folder = store_path / "frieze"
    found: list[dict[str, Any]] = []
    for path in reversed([folder / NAME, *(_older(folder / NAME, n) for n in range(1, KEPT + 1))]):
        try:
            with open(path, "rb", opener=opener) as file:
                lines = file.read().splitlines()
        except OSError:
            continue
        found += [fields for fields in map(_parsed, lines) if fields is not None]
    return found


def redacted(text: str) -> str:
    """Text without passwords, tokens and keys that might have come in an error's message."""
    return _SECRETS.sub("***", text)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {name: _clean(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(part) for part in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def _number(text: str) -> float | None:
    """A number of a log; None of NaN and infinity, which JSON does not have."""
    number = float(text)
    return number if math.isfinite(number) else None


def _rotate(path: Path) -> None:
    """Set a full file aside; the oldest goes."""
    if not path.exists() or path.stat().st_size < MOST_BYTES:
        return
    for number in range(KEPT, 0, -1):
        newer = _older(path, number - 1) if number > 1 else path
        if newer.exists():
            newer.replace(_older(path, number))


def _older(path: Path, number: int) -> Path:
    return path.with_name(f"log.{number}.jsonl")


def _ends_whole(path: Path) -> bool:
    with open(path, "rb", opener=opener) as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


Figure = Annotated[float, Field(ge=0, le=2**63, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**31)]
Side = Annotated[int, Field(ge=1, le=2**31)]
Size = Annotated[list[Side], Field(min_length=2, max_length=2)]


class Values(BaseModel):
    """JSON values of these types; more of them are left as they are."""

    model_config = ConfigDict(strict=True, extra="allow")


class Stage(Values):
    """A stage of a plan, in pixels."""

    size: Size
    steps: Count


class Worker(Values):
    """Where a rank runs."""

    rank: Count
    device: str
    pid: Count
    node: str


class Accuracy(Values):
    """The seconds that steps and decoding were said to take, and took."""

    predicted: Figure
    took: Figure


class Line(Values):
    """What readers of the log reckon with; a line may say more."""

    event: str
    time: Figure
    stage: Annotated[int, Field(ge=1, le=2**31)] = 1
    step: Count = 0
    seconds: Figure = 0.0
    compute: Figure = 0.0
    exchange: Figure = 0.0
    driver: Figure = 0.0
    saving: Figure = 0.0
    elapsed: Figure = 0.0
    moved_bytes: Figure = 0
    peak_bytes: Figure = 0
    left: Figure | None = None
    left_is: Literal["about", "at least"] | None = None
    accuracy: Accuracy | None = None
    reused: Count = 0
    evaluations: Count = 0
    size: Size | None = None
    message: str = ""
    stages: Annotated[list[Stage], Field(min_length=1)] | None = None
    workers: list[Worker] | None = None
    versions: dict[str, str] | None = None


# What lines of a kind must say.
_SAID = {
    "stage": {"stage"},
    "step": {"stage", "step", "seconds"},
    "block": {"elapsed"},
    "save": {"seconds"},
}


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        fields = json.loads(line, parse_float=_number, parse_constant=_number)
        said = Line.model_validate(fields)
    except (ValueError, RecursionError):
        return None
    needed = _SAID.get(said.event, set())
    return fields if isinstance(fields, dict) and needed <= fields.keys() else None
