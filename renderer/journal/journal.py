"""The journal: one JSON line per event, written by the driver alone, and the driver's lock.

A block or a state counts once its line is whole and on disk. A process killed while appending
leaves at most a torn last line, which readers ignore and the next append cuts off. Every line has
a checksum; one that is damaged counts for nothing.
"""

from __future__ import annotations

import fcntl
import json
import operator
import os
import struct
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import StoreError
from ..files.regular_files import opener
from .checksums import sealed, values_of
from .inventory import Inventory, Reuse, SavedState, inventory
from .lines import event_of

Event = dict[str, Any]
Entry = tuple[str, Event | None]

# Locks of this process by (device, inode). POSIX drops a process's lock when *any* of its
# descriptors of that file is closed, so each lock file is opened once and stays open.
_held: dict[tuple[int, int], int] = {}
_holding = threading.Lock()
_PATIENCE = 1.0
# C's struct flock on 64-bit Linux: type, whence, start, length, pid.
_FLOCK = "@hhqqi4x"


class Journal(ABC):
    """The events of one store, in the order they happened, and what they come to."""

    # Seconds between two looks at it that are worth their while.
    pace = 0.0
    # Whether all its lines have checksums. Damaged ones are passed over then, for what is kept has
    # digests too: nothing can be taken for what it is not. Else they are errors.
    is_sealed = False
    _inventory: tuple[list[Event], Inventory] | None = None

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
    def _entries(self) -> list[Entry]:
        """(where, event) of all lines, None for the event where one is damaged."""

    @abstractmethod
    def _error(self, where: str) -> StoreError:
        """What to raise for damage."""

    def read(self) -> list[Event]:
        """All events so far; raises `StoreError` where one is damaged and must not be passed."""
        entries = self._entries()
        if not self.is_sealed and (broken := [where for where, event in entries if event is None]):
            raise self._error(broken[0])
        return [event for _, event in entries if event is not None]

    def damaged(self) -> list[str]:
        """Where it is damaged and nobody has made up for it, as "line 7"."""
        known = self.inventory().lost_lines
        return [w for w, event in self._entries() if event is None and w not in known]

    def inventory(self) -> Inventory:
        """What the events so far come to; not to be changed."""
        events = self.read()
        if self._inventory is None or not _are_same(events, self._inventory[0]):
            self._inventory = events, inventory(events)
        return self._inventory[1]

    def blocks(self) -> frozenset[str]:
        """Blocks that are whole on disk."""
        return frozenset(self.inventory().blocks)

    def states(self) -> list[SavedState]:
        """Saved states that can be gone on from, in their order."""
        return self.inventory().usable()

    def last_state(self) -> SavedState | None:
        """The newest of the states."""
        return next(reversed(self.states()), None)

    def reuse(self, state: SavedState) -> Reuse:
        """How the step cache stands at a state."""
        return self.inventory().reuse.get(state, Reuse())

    def entropies(self, stage: int) -> list[dict[str, list[float]]] | None:
        """What a stage's first step measured, for each half of the guidance."""
        return self.inventory().entropies.get(stage)

    @property
    def is_finished(self) -> bool:
        """Whether the pyramid is whole, and nothing below it was lost since."""
        return self.inventory().levels is not None


def _are_same(events: list[Event], before: list[Event]) -> bool:
    """Whether nothing was added: events are parsed once, and stay the same objects."""
    return len(events) == len(before) and all(map(operator.is_, events, before))


class FileJournal(Journal):
    """Events as lines of a file, and a lock beside it that its driver holds until it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = path.with_name("lock")
        self._appending = threading.Lock()
        self._is_mended = False
        self._parsed: dict[bytes, Event | None] = {}

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
                descriptor = opener(self._lock, os.O_RDWR | os.O_CREAT)
            except OSError as error:
                raise StoreError(
                    f"{self._lock} cannot be written: {error.strerror or error}"
                ) from error
            if not _try_lock(descriptor):
                os.close(descriptor)
                raise StoreError(
                    f"{self.path.parent.parent} is being drawn by another process; "
                    "wait for it, stop it, or use another name"
                )
            state = os.fstat(descriptor)
            _held[state.st_dev, state.st_ino] = descriptor

    def release(self) -> None:
        """Let the lock go: a process that draws many stores has no file open for each."""
        with _holding:
            descriptor = _held.pop(_key(self._lock) or (0, 0), None)
            if descriptor is not None:
                os.close(descriptor)

    def is_claimed(self) -> bool:
        """Whether a driver, of this process or another, is at work on the store."""
        with _holding:
            if _key(self._lock) in _held:
                return True
            try:
                descriptor = opener(self._lock, os.O_RDONLY)
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
        timed = sealed({**event, "time": round(time.time(), 3)})
        line = json.dumps(timed, ensure_ascii=True, separators=(",", ":")) + "\n"
        with self._appending:
            try:
                self._write(line.encode("ascii"))
            except OSError as error:
                raise StoreError(
                    f"{self.path} cannot be written: {error.strerror or error}"
                ) from error

    def _entries(self) -> list[Entry]:
        """Lines are parsed once, however often they are read."""
        try:
            with open(self.path, "rb", opener=opener) as file:
                text = file.read()
        except FileNotFoundError:
            return []
        lines = text[: self._whole_bytes(text)].splitlines()
        known, self._parsed = self._parsed, {}
        for line in lines:
            self._parsed[line] = known[line] if line in known else self._event(line)
        return [(f"line {number}", self._parsed[line]) for number, line in enumerate(lines, 1)]

    def _error(self, where: str) -> StoreError:
        return StoreError(f"{self.path}: {where} is no event; restore it from a copy")

    def _event(self, line: bytes) -> Event | None:
        try:
            return event_of(values_of(line), is_sealed=self.is_sealed)
        except ValueError:
            return None

    def _whole_bytes(self, text: bytes) -> int:
        """Bytes up to the end of the last whole line; without checksums also one that is none."""
        end = text.rfind(b"\n") + 1
        last = text[text.rfind(b"\n", 0, end - 1) + 1 : end] if end else b""
        is_torn = last and not self.is_sealed and self._event(last) is None
        return end - len(last) if is_torn else end

    def _write(self, line: bytes) -> None:
        """Cut off a torn line once, and again after a write that failed half-way."""
        with open(self.path, "a+b", opener=opener) as file:
            if not self._is_mended:
                file.seek(0)
                file.truncate(self._whole_bytes(file.read()))
            self._is_mended = False
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
            self._is_mended = True


def _key(path: Path) -> tuple[int, int] | None:
    try:
        state = path.lstat()
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
