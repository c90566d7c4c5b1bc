"""The journal: one JSON line per event, written by the driver alone, and the driver's lock.

A block or a state counts once its line is whole and on disk. A process killed while appending
leaves at most a torn last line, which readers ignore and the next append cuts off.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import StoreError

# Locks of this process by (device, inode). POSIX drops a process's lock when *any* of its
# descriptors of that file is closed, so each lock file is opened once and stays open.
_held: dict[tuple[int, int], int] = {}
_holding = threading.Lock()
_PATIENCE = 1.0
# C's struct flock on 64-bit Linux: type, whence, start, length, pid.
_FLOCK = "@hhqqi4x"


@dataclass(frozen=True)
class State:
    """A saved state: all latents of `stage` after `step` steps, in `slot`."""

    stage: int
    step: int
    slot: int


class Journal(ABC):
    """The events of one store, in the order they happened, and what they mean."""

    # Seconds between two looks at it that are worth their while.
    pace = 0.0

    @property
    @abstractmethod
    def size(self) -> int:
        """It grows with every event."""

    @abstractmethod
    def claim(self) -> None:
        """Make this process the store's driver; raises `StoreError` if there is one."""

    @abstractmethod
    def release(self) -> None:
        """The work is done: where a driver counts by its signs of life, give none from now on."""

    @abstractmethod
    def is_claimed(self) -> bool:
        """Whether a driver, of this process or another, is at work on the store."""

    def silence(self) -> float:
        """Seconds since a driver's last sign of life, where it gives any."""
        return 0.0

    def is_given_up(self) -> bool:
        """Whether a driver that `is_claimed` still allows for is gone; takes its time to tell."""
        return False

    @abstractmethod
    def append(self, event: Mapping[str, Any]) -> None:
        """Add one event, with the seconds since the epoch, and return when it is there to stay.

        The driver's alone to call.
        """

    @abstractmethod
    def read(self) -> list[dict[str, Any]]:
        """All events so far; raises `StoreError` where one is broken."""

    def blocks(self) -> frozenset[str]:
        """Blocks that are whole on disk: {"event": "block", "id": ...} or {..., "ids": [...]}."""
        ids: set[str] = set()
        for event in self._named("block"):
            ids.update(event["ids"] if "ids" in event else [event["id"]])
        return frozenset(ids)

    def states(self) -> list[State]:
        """Every {"event": "state", "stage": ..., "step": ..., "slot": ...}, in their order."""
        names = ("stage", "step", "slot")
        return [State(*(int(event[name]) for name in names)) for event in self._named("state")]

    def last_state(self) -> State | None:
        """The newest of the states."""
        return next(reversed(self.states()), None)

    def entropies(self, stage: int) -> list[dict[str, list[float]]] | None:
        """What a stage's first step measured, for each half of the guidance.

        From {"event": "focus", "stage": ..., "entropies": [{layer: [a number for each head]}]}.
        """
        found = [event for event in self._named("focus") if event["stage"] == stage]
        return found[-1]["entropies"] if found else None

    @property
    def is_finished(self) -> bool:
        """Whether {"event": "finished"} was written."""
        return bool(self._named("finished"))

    def _named(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.read() if event["event"] == name]


class FileJournal(Journal):
    """Events as lines of a file, and a lock beside it that its driver holds until it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = path.with_name("lock")
        self._appending = threading.Lock()
        self._is_mended = False

    @property
    def size(self) -> int:
        """Bytes so far: it grows with every event."""
        return self.path.stat().st_size if self.path.exists() else 0

    def claim(self) -> None:
        """Make this process the store's driver until it ends; raises `StoreError` if one is."""
        with _holding:
            _forget_deleted()
            if _key(self._lock) in _held:
                return
            try:
                descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise StoreError(f"{self._lock} cannot be written: {error.strerror}") from error
            if not _try_lock(descriptor):
                os.close(descriptor)
                raise StoreError(
                    f"{self.path.parent.parent} is being drawn by another process; "
                    "wait for it, stop it, or use another name"
                )
            state = os.fstat(descriptor)
            _held[state.st_dev, state.st_ino] = descriptor

    def release(self) -> None:
        """Nothing to do: the lock ends with the process."""

    def is_claimed(self) -> bool:
        """Whether a driver, of this process or another, is at work on the store."""
        with _holding:
            if _key(self._lock) in _held:
                return True
            try:
                descriptor = os.open(self._lock, os.O_RDONLY)
            except OSError:
                return False
            try:
                return _is_locked(descriptor)
            finally:
                os.close(descriptor)

    def append(self, event: Mapping[str, Any]) -> None:
        """Add one event, with the seconds since the epoch, and return when it is on disk.

        The driver's alone to call.
        """
        self.claim()
        timed = {**event, "time": round(time.time(), 3)}
        line = json.dumps(timed, ensure_ascii=True, separators=(",", ":")) + "\n"
        with self._appending:
            try:
                self._write(line.encode("ascii"))
            except OSError as error:
                raise StoreError(f"{self.path} cannot be written: {error.strerror}") from error

    def read(self) -> list[dict[str, Any]]:
        """All events so far; raises `StoreError` if a line other than the last is broken."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return []
        events = []
        for number, line in enumerate(text[: _whole_bytes(text)].splitlines(), 1):
            event = _parse(line)
            if event is None:
                raise StoreError(f"{self.path}: line {number} is no event; restore it from a copy")
            events.append(event)
        return events

    def _write(self, line: bytes) -> None:
        """Cut off a torn line once, and again after a write that failed half-way."""
        with self.path.open("a+b") as file:
            if not self._is_mended:
                file.seek(0)
                file.truncate(_whole_bytes(file.read()))
            self._is_mended = False
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
            self._is_mended = True


def is_event(value: Any) -> bool:
    """Whether a JSON value is an event."""
    return isinstance(value, dict) and isinstance(value.get("event"), str)


def _whole_bytes(text: bytes) -> int:
    """Bytes up to the end of the last whole line."""
    end = text.rfind(b"\n") + 1
    last = text[text.rfind(b"\n", 0, end - 1) + 1 : end] if end else b""
    return end - len(last) if last and _parse(last) is None else end


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if is_event(event) else None


def _key(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino


def _forget_deleted() -> None:
    """Close the locks of stores that are gone; the caller holds `_holding`."""
    for key, descriptor in list(_held.items()):
        if os.fstat(descriptor).st_nlink == 0:
            os.close(descriptor)
            del _held[key]


def _is_locked(descriptor: int) -> bool:
    """Whether another process holds the lock; asked without taking it, so that nobody waits."""
    try:
        answer = fcntl.fcntl(
            descriptor, fcntl.F_GETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, *[0] * 4)
        )
    except OSError:
        return True
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)


def _try_lock(descriptor: int) -> bool:
    """Lock, with patience for a driver that is about to end."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        except OSError:
            # This file system has no locks: the guard is lost, the journal is not.
            return True
        else:
            return True
