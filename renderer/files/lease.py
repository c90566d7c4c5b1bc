"""Who draws into a store in a bucket: a lease that its driver renews, and loses by silence.

A lease that was not renewed for `SECONDS` may be taken over from any host. Silence is measured by
the one who waits, so the hosts' clocks need not agree; only a lease that is older than a minute
and more by the server's clock is taken at once.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import secrets
import socket
import threading
import time
from datetime import UTC, datetime
from typing import Any

from ..errors import StoreError, TakenOverError
from .bucket import Bucket, Found

NAME = "frieze/lease.json"
SECONDS = 30.0
LONGEST = 3600.0  # no lease is waited for longer, whatever it says of itself
LOOK = 1.0  # seconds between two looks at somebody else's lease
# How far two clocks may be apart before an old lease is taken for an abandoned one.
SKEW = 60.0

_held: dict[str, Lease] = {}
_holding = threading.Lock()
_claiming = threading.Lock()
_renewer: threading.Thread | None = None


class Lease:
    """One store's lease, held by this process."""

    def __init__(self, bucket: Bucket) -> None:
        # A lease is over before a patient client would give up.
        self.bucket = type(bucket)(bucket.path, is_quick=True)
        self.owner = secrets.token_hex(8)
        self.seconds = SECONDS
        self.is_lost = False
        self.renewed = time.monotonic()
        self.pid = os.getpid()
        self._tag: str | None = None
        self._count = 0
        self._renewing = threading.Lock()

    def take(self, tag: str | None, bucket: Bucket | None = None) -> bool:
        """Write it in the place of the version `tag`; False if somebody was quicker.

        Through `bucket`, if it is to be more patient.
        """
        self._count += 1
        about = {
            "owner": self.owner,
            "host": socket.gethostname(),
            "pid": self.pid,
            "seconds": self.seconds,
            "count": self._count,
        }
        began = time.monotonic()
        found = (bucket or self.bucket).swap(NAME, json.dumps(about).encode(), tag)
        if found is None:
            return False
        self._tag, self.renewed = found, began
        return True

    def renew(self, bucket: Bucket | None = None) -> None:
        """Hold it for longer; marks it lost where somebody has taken it."""
        with self._renewing:
            self.is_lost = self.is_lost or not self.take(self._tag, bucket)

    @property
    def is_fresh(self) -> bool:
        """Whether nobody else can have taken it yet."""
        return not self.is_lost and time.monotonic() - self.renewed < self.seconds


class LeaseObserver:
    """Whether a lease is alive, by how long it has looked the same from here."""

    def __init__(self) -> None:
        self._tag = ""
        self._since = 0.0

    def is_alive(self, found: Found | None) -> bool:
        """Whether its holder may still be at work."""
        if found is None:
            return False
        if found.tag != self._tag:
            self._tag, self._since = found.tag, time.monotonic()
        seconds = _about(found).get("seconds", SECONDS)
        return time.monotonic() - self._since < seconds and silence(found) < seconds + SKEW

    def has_moved(self, found: Found | None) -> bool:
        """Whether it was renewed since the first look."""
        return bool(self._tag and found and found.tag != self._tag)


def silence(found: Found) -> float:
    """Seconds since a lease was renewed, as far as this host's clock is the server's."""
    return max(0.0, (datetime.now(UTC) - found.modified).total_seconds())


def is_given_up(bucket: Bucket) -> bool:
    """Whether a lease is past its time, and is not renewed while one looks on.

    One that is within its time takes a moment to tell, another as long as a renewal would.
    """
    watch, began = LeaseObserver(), time.monotonic()
    while not is_held(bucket) and (found := bucket.fetch(NAME)):
        seconds = _about(found).get("seconds", SECONDS)
        if watch.has_moved(found) or silence(found) < seconds:
            return False
        watch.is_alive(found)
        if time.monotonic() - began > seconds / 3 + 2 * LOOK:
            return True
        time.sleep(LOOK)
    return False


def is_leased_only(bucket: Bucket) -> bool:
    """Whether no more than a lease is in the folder `frieze` here."""
    return bucket.tags("frieze").keys() <= {NAME}


def clear(bucket: Bucket) -> None:
    """Delete all that is here but the lease."""
    bucket.remove(name for name in bucket.tags("") if name != NAME)


def claim(bucket: Bucket, busy: str = "") -> Lease:
    """This process's lease on a store, taken if need be; raises `StoreError` if another holds it.

    `TakenOverError` if this process held it before. Waits until a silent holder's time is over, or
    it is heard of. `busy` tells what is being done there, for that error.
    """
    lease = _own(bucket)
    if lease is None:
        with _claiming:
            lease = _own(bucket) or _kept(_taken(bucket, busy or f"{bucket} is being drawn"))
    if not lease.is_fresh:
        lease.renew(bucket)
    if lease.is_lost:
        raise TakenOverError(
            f"{bucket} was taken over by another process, for this one was silent for "
            f"{lease.seconds:g} s; leave it to that one"
        )
    return lease


def release(bucket: Bucket) -> None:
    """Give a lease back, if this process holds it."""
    with _holding:
        lease = _own(bucket)
        _held.pop(str(bucket), None)
    if lease and lease.is_fresh:
        # Where deleting is forbidden, time does the same.
        with lease._renewing, contextlib.suppress(StoreError):
            lease.bucket.remove([NAME])


def held() -> dict[str, Lease]:
    """This process's leases, by the address of what each is on."""
    return dict(_held)


def is_held(bucket: Bucket) -> bool:
    """Whether this process holds the lease."""
    lease = _own(bucket)
    return lease is not None and lease.is_fresh


def _own(bucket: Bucket) -> Lease | None:
    """This process's lease; one that came by a fork is the parent's."""
    lease = _held.get(str(bucket))
    return lease if lease and lease.pid == os.getpid() else None


def _kept(lease: Lease) -> Lease:
    """Renew it from now on."""
    global _renewer
    with _holding:
        _held[str(lease.bucket)] = lease
        if _renewer is None or not _renewer.is_alive():
            _renewer = threading.Thread(target=_renew, name="frieze-leases", daemon=True)
            _renewer.start()
    return lease


def _taken(bucket: Bucket, busy: str) -> Lease:
    lease, watch = Lease(bucket), LeaseObserver()
    while True:
        found = lease.bucket.fetch(NAME)
        if watch.has_moved(found):
            assert found
            about = _about(found)
            raise StoreError(
                f"{busy} by another process ({about.get('host')}, pid "
                f"{about.get('pid')}); wait for it, stop it, or use another name"
            )
        if watch.is_alive(found):
            time.sleep(LOOK)
        elif lease.take(found.tag if found else None):
            return lease


def _about(found: Found) -> dict[str, Any]:
    """What a lease says; a damaged one says nothing, and ends like any other."""
    try:
        about = json.loads(found.data)
        seconds = float(about["seconds"])
        return {**about, "seconds": seconds} if 0 < seconds <= LONGEST else {}
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return {}


def _renew() -> None:
    """Keep all leases of this process fresh, for as long as there are any."""
    global _renewer
    while True:
        time.sleep(SECONDS / 3)
        with _holding:
            leases = list(_held.values())
            if not leases:
                _renewer = None
                return
        for lease in leases:
            # Out of reach for now: the next event is refused if it stays so.
            with contextlib.suppress(StoreError):
                lease.renew()


def release_all() -> None:
    """Give back all that this process holds."""
    for lease in list(_held.values()):
        release(lease.bucket)


atexit.register(release_all)
