"""Event: what a render tells its caller while it works."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

Kind = Literal[
    "plan",
    "workers",
    "stage",
    "step",
    "save",
    "decode",
    "block",
    "export",
    "done",
    "note",
    "failure",
    "recovered",
    "resized",
    "ended",
    "digests",
]


@dataclass(frozen=True)
class Event:
    """One thing that happened; numbers count from 1, and 0 or "" means "does not apply".

    plan: the table, in `message`. workers: they stand ready; `message` is where. stage: one has
    begun; `message` is its size. step: one is done, in `seconds`. save: the state after `step` is
    on disk. decode: it has begun. block: `blocks` of `num_blocks` are whole on disk.
    export: the file in `message` is awaited. done: all is on disk, after `seconds`. note: a remark.
    failure: something broke, which is not the end; `message` is one line. recovered: the render
    goes on after it, `seconds` after it was noticed. resized: it goes on with another number of
    workers. ended: it goes on no more, unfinished. digests: what each rank took and made since
    the last ones, after `step`, in `facts`.

    `facts` are JSON values beside these, for logs and metrics: bytes, workers, seconds by part, and
    the seconds that are `left` of the whole render.
    """

    kind: Kind
    stage: int = 0
    num_stages: int = 0
    step: int = 0
    num_steps: int = 0
    blocks: int = 0
    num_blocks: int = 0
    seconds: float = 0.0
    message: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """{"event": kind}, the fields that say something, and the facts."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        kind, facts = own.pop("kind"), own.pop("facts")
        return {"event": kind, **{k: v for k, v in own.items() if v}, **facts}

    def to_json(self) -> str:
        """The same as one line."""
        return json.dumps(self.as_json())


@dataclass(frozen=True)
class StepReport:
    """What one step cost on one rank.

    Of its seconds `waiting` were spent for other ranks, and `saving` for the state before it.
    `fault` names what is not finite any more on some rank; all ranks say the same. `state` and
    `kept` are digests of the chunks that the rank wrote, of that state and of the x0 that is kept
    for guidance. `computed` says, where steps may reuse an earlier one, after how many of the
    stage's steps each half of the guidance was computed last.
    """

    seconds: float
    bytes_sent: int
    waiting: float
    saving: float
    fault: str = ""
    state: dict[int, str] = field(default_factory=dict)
    kept: dict[int, str] = field(default_factory=dict)
    computed: tuple[int, ...] = ()
