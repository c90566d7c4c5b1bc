"""How a render stands, read from its store alone: from another machine, while it is drawn.

Nothing is written and no lock is taken. Times are the driver's: `time` of the journal and the log.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import StoreError
from ..errors import line as one_line
from ..files.location import S3Path, location
from ..journal.inventory import SavedState
from ..store.store import Store
from . import run_log
from .durations import clock, span
from .time_left import Left, Sureness, of_facts

Fields = Mapping[str, Any]


# A driver that holds the store and says nothing for this long, and for many steps, may hang.
PATIENCE_SECONDS, PATIENCE_STEPS = 600.0, 20


# A driver that lives gives a sign of it every ten seconds in a bucket.
SIGN_SECONDS = 15.0


RECENT = 8


@dataclass(frozen=True)
class Status:
    """One look. `left` are the seconds until the last block, `left_is` how sure they are.

    running: a driver is at work; `silence` are the seconds since its last sign of life, where it
    gives any. silent: one holds the store, and has said nothing for long.
    stopped: unfinished, and nobody is at work; `reason` says why if the driver could tell.
    done: all pixels are there. Counts are of things done; `stage` counts from 1.
    """

    path: str
    state: Literal["running", "silent", "stopped", "done"]
    reason: str
    stage: int
    num_stages: int
    size: tuple[int, int]
    step: int
    num_steps: int
    blocks: int
    num_blocks: int
    seconds_per_step: float
    left: float | None
    heard: float
    silence: float
    num_resumes: int
    num_recovered: int
    stages: Sequence[Fields]
    workers: Sequence[Fields] = field(default_factory=list)
    failures: Sequence[Fields] = field(default_factory=list)
    left_is: Sureness = ""

    def as_json(self) -> dict[str, Any]:
        """{"event": "status"} and the fields; `heard` is the epoch's second of the last news."""
        return {"event": "status", **asdict(self)}

    def line(self) -> str:
        """How it stands, as one line."""
        if self.state == "done":
            return f"{self.path}: done, {self.num_blocks} blocks"
        what = f"{self.path}: {self.state}"
        if self.blocks or self._is_drawn:
            what += f", decoding, block {self.blocks}/{self.num_blocks}"
        else:
            width, height = self.size
            what += f", stage {self.stage}/{self.num_stages} {width}x{height}"
            what += f", step {self.step}/{self.num_steps}"
        if self.seconds_per_step and not self._is_drawn:
            what += f", {self.seconds_per_step:.2f} s each"
        if self.state == "running" and self.left is not None:
            what += f", {Left(self.left, self.left_is)}"
        if self.state == "silent":
            what += f", no news for {span(max(0.0, time.time() - self.heard))}"
        elif self.state == "running" and self.silence > SIGN_SECONDS:
            what += f", last sign of life {span(self.silence)} ago"
        return one_line(what + (f": {self.reason}" if self.reason else ""))

    def __str__(self) -> str:
        rows = [self.line()]
        if self.state in ("running", "silent") and self.workers:
            places = "; ".join(
                f"rank {w['rank']} ({w['device']}, pid {w['pid']} on {w['node']})"
                for w in self.workers
            )
            rows.append(one_line(f"workers: {len(self.workers)}, {places}"))
        if self.num_resumes:
            rows.append(f"times resumed: {self.num_resumes}")
        if self.failures:
            rows.append(f"failures: {len(self.failures)}, recovered from {self.num_recovered}")
            last = self.failures[-10:]
            rows += [f"  {clock(f['time'])} {one_line(f.get('message', ''))}" for f in last]
        return "\n".join(rows)

    @property
    def _is_drawn(self) -> bool:
        return (self.stage, self.step) == (self.num_stages, self.num_steps)


def status(path: str | os.PathLike[str] | S3Path) -> Status:
    """How the store at `path` stands; raises `StoreError` where there is none, or it is damaged."""
    where = location(path, StoreError)
    if isinstance(where, Path) and not where.is_dir():
        raise StoreError(f"there is no store at {path}")
    store = Store.open(where)
    events, lines = store.journal.read(), run_log.read(store.path)
    stages = _stages(store, lines)
    stage, step = _at(lines, store.last_state())
    stage = min(stage, len(stages) - 1)
    done = len(store.done())
    pace = _pace(events, lines, stage)
    heard = max((line["time"] for line in (*events, *lines) if "time" in line), default=0.0)
    silence = store.journal.silence()
    how, reason = _how(store, lines, heard, pace)
    left = _left(lines) if how == "running" else None
    return Status(
        path=str(path),
        state=how,
        reason=reason,
        stage=stage + 1,
        num_stages=len(stages),
        size=tuple(stages[stage]["size"]),
        step=step,
        num_steps=stages[stage]["steps"],
        blocks=done,
        num_blocks=store.layout.num_blocks,
        seconds_per_step=pace,
        left=None if left is None else left.seconds,
        left_is="" if left is None else left.sureness,
        heard=heard,
        silence=silence,
        num_recovered=sum(line["event"] == "recovered" for line in lines),
        num_resumes=sum(bool(line.get("resumes")) for line in lines),
        stages=stages,
        workers=next((x["workers"] for x in reversed(lines) if "workers" in x), []),
        failures=[line for line in lines if _is_failure(line)],
    )


def _is_failure(line: Fields) -> bool:
    return line["event"] == "failure" or (line["event"] == "ended" and not line.get("is_asked"))


def _how(
    store: Store, lines: Sequence[Fields], heard: float, pace: float
) -> tuple[Literal["running", "silent", "stopped", "done"], str]:
    """Whether anybody is at work, and why not."""
    if store.is_complete:
        return "done", ""
    last = lines[-1] if lines else {"event": ""}
    if last["event"] == "ended":
        return "stopped", str(last.get("message", ""))
    if not store.journal.is_claimed() or store.journal.is_given_up():
        ago = store.journal.silence()
        return "stopped", "its driver is gone" + (f" for {span(ago)}" if ago else "")
    # A store that was just made has told nothing yet.
    if heard and time.time() - heard > max(PATIENCE_SECONDS, PATIENCE_STEPS * pace):
        return "silent", ""
    return "running", ""


def _stages(store: Store, lines: Sequence[Fields]) -> list[dict[str, Any]]:
    """Size in pixels and number of steps of every stage."""
    if found := _last(lines, "plan").get("stages"):
        return list(found)
    layout, stages = store.layout, store.run.get("stages", [])
    if not stages:
        return [{"size": [layout.width, layout.height], "steps": 0}]
    scale = layout.width / stages[-1]["width"]
    return [
        {
            "size": [int(stage["width"] * scale), int(stage["height"] * scale)],
            "steps": len(stage["levels"]) - 1,
        }
        for stage in stages
    ]


def _at(lines: Sequence[Fields], state: SavedState | None) -> tuple[int, int]:
    """(stage from 0, its steps done): saved, or told since."""
    told = [line for line in _since_plan(lines) if line["event"] in ("stage", "step")]
    at = (told[-1]["stage"] - 1, told[-1].get("step", 0)) if told else (0, 0)
    return max(at, (state.stage, state.step)) if state else at


def _pace(events: Sequence[Fields], lines: Sequence[Fields], stage: int) -> float:
    """Seconds of a step of this stage: the median of the last few; 0 before the first."""
    told = [x for x in lines if x["event"] == "step" and x["stage"] == stage + 1]
    recent = [line["seconds"] + line.get("driver", 0.0) for line in told[-RECENT:]]
    if not recent:
        saved = [e for e in events if e["event"] == "state" and e["stage"] == stage and "time" in e]
        pairs = itertools.pairwise(saved)
        run_isolated = [(b["time"] - a["time"], b["step"] - a["step"]) for a, b in pairs]
        recent = [seconds / steps for seconds, steps in run_isolated if steps > 0][-RECENT:]
    return statistics.median(recent) if recent else 0.0


def _left(lines: Sequence[Fields]) -> Left | None:
    """What the newest run told last of the time that is left."""
    told = (of_facts(line) for line in reversed(_since_plan(lines)))
    return next((left for left in told if left is not None), None)


def _since_plan(lines: Sequence[Fields]) -> Sequence[Fields]:
    """Lines of the newest run."""
    plans = [number for number, line in enumerate(lines) if line["event"] == "plan"]
    return lines[plans[-1] :] if plans else lines


def _last(lines: Sequence[Fields], event: str) -> Fields:
    return next((line for line in reversed(lines) if line["event"] == event), {})
