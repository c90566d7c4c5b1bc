"""What image tokens attend to in a stage, by its noise: `pooled`, or `full,pooled@0.5`."""

from __future__ import annotations

import difflib
from typing import Literal, NamedTuple, get_args

from ..errors import shown

Attend = Literal["full", "pooled", "shifted", "windows", "fused"]
KINDS: tuple[Attend, ...] = get_args(Attend)
MOST = 100  # letters of a schedule


class AttendFrom(NamedTuple):
    """What is attended to from a noise level on, until the next one."""

    start: float
    kind: Attend


Schedule = tuple[AttendFrom, ...]


def attend_schedule(text: str) -> Schedule:
    """What is attended to, from the noisiest level on; ValueError that says what would work."""
    found: list[AttendFrom] = []
    for part in text[:MOST].split(","):
        word, _, start = part.strip().partition("@")
        if word not in KINDS:
            near = difflib.get_close_matches(word, KINDS, n=1, cutoff=0.0)[0]
            raise ValueError(f"{shown(word)} is none of {', '.join(KINDS)}; the nearest is {near}")
        if bool(start) != bool(found):
            raise ValueError("the first is from pure noise on, others from KIND@SIGMA down")
        try:
            at = float(start or "inf")
        except ValueError:
            at = -1.0
        if start and not 0 < at < min(1.0, found[-1].start):
            raise ValueError(f"@{shown(start)}: noise levels fall from less than 1 to more than 0")
        found.append(AttendFrom(at, word))
    return tuple(found)
