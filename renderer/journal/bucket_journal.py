"""The journal of a store in a bucket, where nothing can be appended to: numbered pages of events.

frieze/journal/00000001.json and on, each one {"owner", "events"}. The driver writes the last page
anew with each event, on the condition that it is still the one that it knows; a full page is
followed by the next. So a second driver cannot write unseen, and a reader that has read a page
that was full never asks for it again. A page that is damaged is written on no more.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Mapping
from typing import Any

from ..errors import StoreError, TakenOverError
from ..files import lease
from ..files.bucket import Bucket
from .checksums import sealed, values_of
from .journal import Entry, Journal
from .lines import event_of

FOLDER = "frieze/journal"
# A page is written this often at most, and read in one go.
PAGE_EVENTS = 128
PAGE_BYTES = 2**16

_PAGE = re.compile(r"/(\d{8})\.json$")

Lines = list[dict[str, Any]]  # events as they are written, with their checksums


class BucketJournal(Journal):
    """The events of one store, in the order they happened."""

    pace = 1.0

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._watch = lease.LeaseObserver()
        self._tags: dict[int, str] = {}
        self._lines: dict[int, Lines | None] = {}  # None of a page that is damaged or missing
        self._known: dict[int, list[Entry]] = {}
        self._owner = ""
        self._turning = threading.RLock()

    @property
    def size(self) -> int:
        """Events so far."""
        return len(self.read())

    def claim(self) -> None:
        """Make this process the store's driver; raises `StoreError` if there is one."""
        lease.claim(self._bucket)

    def release(self) -> None:
        """Let another be the driver from now on."""
        lease.release(self._bucket)

    def is_claimed(self) -> bool:
        """Whether a driver, of this process or another, is at work on the store."""
        if lease.is_held(self._bucket):
            return True
        return self._watch.is_alive(self._bucket.fetch(lease.NAME))

    def silence(self) -> float:
        """Seconds since the lease was renewed; 0 where there is none."""
        found = self._bucket.fetch(lease.NAME)
        return lease.silence(found) if found else 0.0

    def is_given_up(self) -> bool:
        """Whether the lease is past its time, and is not renewed."""
        return lease.is_given_up(self._bucket)

    def append(self, event: Mapping[str, Any]) -> None:
        """Add one event, with the seconds since the epoch, and return when it is there to stay."""
        owner = lease.claim(self._bucket).owner
        timed = sealed({**event, "time": round(time.time(), 3)})
        with self._turning:
            if owner != self._owner:
                self._entries()  # the first event of this driver: where did the last one stop?
            self._owner = ""
            number, tag, lines = self._open_page()
            lines = [*lines, timed]
            new = self._bucket.swap(_name(number), _encoded(owner, lines), tag)
            if new is None:
                raise TakenOverError(
                    f"{self._bucket} is being drawn by another process as well; leave it to that "
                    "one, or stop it and resume"
                )
            self._keep(number, new, lines)
            self._owner = owner

    def _entries(self) -> list[Entry]:
        with self._turning:
            tags = self._bucket.tags(FOLDER)
            there = {int(found[1]): name for name in tags if (found := _PAGE.search(name))}
            numbers = range(1, max(there, default=0) + 1)
            for number in numbers:
                tag = tags[there[number]] if number in there else ""
                if self._tags.get(number) != tag:
                    self._keep(number, *self._read_page(number))
            for gone in self._tags.keys() - set(numbers):
                del self._tags[gone], self._lines[gone], self._known[gone]
            return [entry for number in numbers for entry in self._known[number]]

    def _error(self, where: str) -> StoreError:
        is_missing = where.endswith(".json") and self._bucket.read(where) is None
        what = "is missing" if is_missing else "is no page of a journal"
        return StoreError(f"{self._bucket}/{where} {what}; restore it from a copy")

    def _keep(self, number: int, tag: str, lines: Lines | None) -> None:
        self._tags[number], self._lines[number] = tag, lines
        events = [event_of(line, is_sealed=self.is_sealed) for line in lines or ()]
        known = self._known.get(number, [])
        for place, (_, event) in enumerate(known[: len(events)]):
            if event == events[place]:
                events[place] = event  # the same object: what was made of it holds
        page = _name(number)
        self._known[number] = [
            (f"{page}, event {place}", event) for place, event in enumerate(events, 1)
        ]
        if lines is None:
            self._known[number] = [(page, None)]

    def _open_page(self) -> tuple[int, str | None, Lines]:
        """(number, tag, lines) of the page to write on: the last one, or a new one."""
        number = max(self._tags, default=0)
        lines = self._lines.get(number)
        if lines and len(lines) < PAGE_EVENTS and len(_encoded("", lines)) < PAGE_BYTES:
            return number, self._tags[number], lines
        return number + 1, None, []

    def _read_page(self, number: int) -> tuple[str, Lines | None]:
        """(tag, lines) of a page; no tag where it is missing."""
        found = self._bucket.fetch(_name(number))
        if found is None:
            return "", None
        try:
            lines = values_of(found.data)["events"]
        except (ValueError, KeyError, TypeError):
            return found.tag, None
        return found.tag, lines if isinstance(lines, list) else None


def _encoded(owner: str, lines: Lines) -> bytes:
    page = {"owner": owner, "events": lines}
    return json.dumps(page, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def _name(number: int) -> str:
    return f"{FOLDER}/{number:08}.json"
