"""Event: what a render tells its caller while it works."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

Kind = Literal["plan", "stage", "step", "decode", "block", "export", "done", "note"]


@dataclass(frozen=True)
class Event:
    """One thing that happened; numbers count from 1, and 0 or "" means "does not apply".

    plan: the table, in `message`. stage: one has begun; `message` is its size. step: one is
    done, in `seconds`. decode: it has begun. block: `blocks` of `num_blocks` are whole on disk.
    export: the file in `message` is begun. done: all is on disk, after `seconds`. note: a remark.
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

    def to_json(self) -> str:
        """One line of JSON: {"event": kind} and the fields that say something."""
        fields = asdict(self)
        return json.dumps({"event": fields.pop("kind"), **{k: v for k, v in fields.items() if v}})
