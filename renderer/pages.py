"""The journal of a store in a bucket, where nothing can be appended to: numbered pages of events.

frieze/journal/00000001.json and on, each one {"owner", "events"}. The driver writes the last page
anew with each event, on the condition that it is still the one that it knows; a full page is
followed by the next. So a second driver cannot write unseen, and a reader that has read a page
that was full never asks for it again.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import leases
from .errors import StoreError, TakenOverError
from .journal import Journal, is_event

if TYPE_CHECKING:
    from .buckets import Bucket

FOLDER = "frieze/journal"
# A page is written this often at most, and read in one go.
PAGE_EVENTS = 128
PAGE_BYTES = 2**16

_PAGE = re.compile(r"/(\d{8})\.json$")

Page = tuple[str, list[dict[str, Any]]]  # its tag, its events


class PagedJournal(Journal):
    """The events of one store, in the order they happened."""

    pace = 1.0

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._watch = leases.Watch()
        self._pages: dict[int, Page] = {}
        self._owner = ""
        self._turning = threading.RLock()

    @property
    def size(self) -> int:
        """Events so far."""
        return len(self.read())

    def claim(self) -> None:
        """Make this process the store's driver; raises `StoreError` if there is one."""
        leases.claim(self._bucket)

    def release(self) -> None:
        """Let another be the driver from now on."""
        leases.release(self._bucket)

    def is_claimed(self) -> bool:
        """Whether a driver, of this process or another, is at work on the store."""
        if leases.is_held(self._bucket):
            return True
        return self._watch.is_alive(self._bucket.fetch(leases.NAME))

    def silence(self) -> float:
        """Seconds since the lease was renewed; 0 where there is none."""
        found = self._bucket.fetch(leases.NAME)
        return leases.silence(found) if found else 0.0

    def is_given_up(self) -> bool:
        """Whether the lease is past its time, and is not renewed."""
        return leases.is_given_up(self._bucket)

    def append(self, event: Mapping[str, Any]) -> None:
        """Add one event, with the seconds since the epoch, and return when it is there to stay."""
        owner = leases.claim(self._bucket).owner
        timed = {**event, "time": round(time.time(), 3)}
        with self._turning:
            if owner != self._owner:
                self.read()  # the first event of this driver: where did the last one stop?
            self._owner = ""
            number, tag, events = self._open_page()
            events = [*events, timed]
            data = _encoded(owner, events)
            new = self._bucket.swap(_name(number), data, tag)
            if new is None:
                raise TakenOverError(
                    f"{self._bucket} is being drawn by another process as well; leave it to that "
                    "one, or stop it and resume"
                )
            self._pages[number] = (new, events)
            self._owner = owner

    def read(self) -> list[dict[str, Any]]:
        """All events so far; raises `StoreError` if a page is missing or broken."""
        with self._turning:
            tags = self._bucket.tags(FOLDER)
            numbers = sorted(int(found[1]) for name in tags if (found := _PAGE.search(name)))
            if numbers != list(range(1, len(numbers) + 1)):
                missing = min(set(range(1, len(numbers) + 1)) - set(numbers))
                raise StoreError(
                    f"{self._bucket}/{_name(missing)} is missing; restore it from a copy"
                )
            self._pages = {n: page for n, page in self._pages.items() if n in numbers}
            for number in numbers:
                if number not in self._pages or self._pages[number][0] != tags[_name(number)]:
                    self._pages[number] = self._read_page(number)
            return [event for number in numbers for event in self._pages[number][1]]

    def _open_page(self) -> tuple[int, str | None, list[dict[str, Any]]]:
        """(number, tag, events) of the page to write on: the last one, or a new one."""
        number = max(self._pages, default=0)
        if number:
            tag, events = self._pages[number]
            if len(events) < PAGE_EVENTS and len(_encoded("", events)) < PAGE_BYTES:
                return number, tag, events
        return number + 1, None, []

    def _read_page(self, number: int) -> Page:
        found = self._bucket.fetch(_name(number))
        try:
            events = json.loads(found.data)["events"] if found else None
        except (ValueError, KeyError, TypeError):
            events = None
        if found is None or not isinstance(events, list) or not all(map(is_event, events)):
            raise StoreError(
                f"{self._bucket}/{_name(number)} is no page of a journal; restore it from a copy"
            )
        return found.tag, events


def _encoded(owner: str, events: list[dict[str, Any]]) -> bytes:
    page = {"owner": owner, "events": events}
    return json.dumps(page, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def _name(number: int) -> str:
    return f"{FOLDER}/{number:08}.json"
