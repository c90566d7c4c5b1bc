"""The kill drill as a report: what each fault cost, in tests/bench/results/kill_drill.md.

Takes the number of renders, 40 by default, and that of the first, whose predecessors are kept from
an earlier run; a row is written only when its pixels are right.
"""

from __future__ import annotations

import logging
import os
import platform
import random
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from support import environment  # noqa: F401  first: sets what torch reads when it is imported

# isort: split
import ray

from support.drill import FAULTS, Wholes, drill
from support.story import Story

RESULTS = Path(__file__).parent / "results" / "kill_drill.md"
STORIES = RESULTS.with_suffix(".jsonl")


def main(num_renders: int = 40, first: int = 0) -> None:
    ray.init(
        address="local",
        num_cpus=6,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=2**28,
    )
    lines = STORIES.read_text(encoding="utf-8").splitlines() if first else []
    stories = [Story.loads(line) for line in lines[:first]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wholes = Wholes(folder)
        for number in range(first, num_renders):
            stories.append(drill(number, folder, wholes, random.Random(number)))
            print(stories[-1].row(), flush=True)
            told = "".join(f"{story.dumps()}\n" for story in stories)
            STORIES.write_text(told, encoding="utf-8")
            RESULTS.write_text(report(stories), encoding="utf-8")
    ray.shutdown()


def report(stories: list[Story]) -> str:
    """Medians of each fault, then every render."""
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    lines = [
        "# Kill drill",
        "",
        f"`OMP_NUM_THREADS=1 .venv/bin/python tests/bench/kill_drill.py` on {platform.machine()}, "
        f"{os.cpu_count()} cores shared with other work (load {load}).",
        f"{len(stories)} renders of the demo model on two Ray workers, 128 x 128 in two stages of "
        "3 and 4 steps; 3 and 40 with",
        "a raylet killed; 512 x 512 in two of 8 with a link dropped, between two hosts with a node "
        "each. Times count from the fault;",
        "resumed is the first step or block after it. Most of that is the start of a process, or "
        "the wait for one. Without a time nothing was left to do. That a driver was killed is "
        "known to whoever killed it.",
        "",
        "| fault | renders | detected after (median, worst) | resumed after | steps redone |",
        "|---|---|---|---|---|",
    ]
    by_fault = {fault: [s for s in stories if s.fault == fault] for fault in FAULTS}
    lines += [summary(fault, mine) for fault, mine in by_fault.items() if mine]
    head = [
        "",
        "| fault | at | detected | resumed | steps redone | end |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *head, *(story.row() for story in stories), ""])


def summary(fault: str, stories: list[Story]) -> str:
    def both(values: list[float]) -> str:
        return f"{statistics.median(values):.1f} s, {max(values):.1f} s" if values else ""

    detected = both([s.detected for s in stories if s.detected is not None])
    resumed = both([s.resumed for s in stories if s.resumed is not None])
    redone = [story.redone for story in stories]
    steps = f"{statistics.median(redone):g}, {max(redone)}"
    return f"| {fault} | {len(stories)} | {detected} | {resumed} | {steps} |"


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
