"""Whether the processes of ranks answer at all, whatever their verbs do and however long.

One that is stopped, or behind a dropped link, does not. Verbs need no measured time for that.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from .actor_pool import Member

BEAT_SECONDS = 2.0  # between questions
# Ray answers from a thread of its own, which a busy machine, or an operation that holds Python's
# lock, keeps waiting for seconds, not for so long.
SILENT_SECONDS = 30.0


class Heartbeat:
    """Asks members, now and then, and knows who owes an answer for how long."""

    def __init__(self, limit: float) -> None:
        """`limit` (seconds) where it is less than `SILENT_SECONDS`."""
        self.limit = min(limit, SILENT_SECONDS)
        self._asked: dict[Member, tuple[Any, float]] = {}
        self._looked = 0.0

    def silent(self, members: Sequence[Member]) -> list[int]:
        """Which members, by their places, have not answered for `limit` seconds."""
        import ray

        now = time.monotonic()
        if now - self._looked < BEAT_SECONDS:
            return []
        if now - self._looked > 3 * BEAT_SECONDS:  # nobody listened meanwhile: ask anew
            self._asked.clear()
        self._looked = now
        owed = [answer for answer, _ in self._asked.values()]
        answers = ray.wait(owed, num_returns=len(owed), timeout=0)[0] if owed else []
        asked = {m: self._asked[m] for m in members if m in self._asked}
        owing = {
            m: (answer, since) for m, (answer, since) in asked.items() if answer not in answers
        }
        new = {m: (m.ask("whereabouts"), now) for m in members if m not in owing}
        self._asked = owing | new
        return [place for place, m in enumerate(members) if now - self._asked[m][1] > self.limit]
