"""The damage drill as a report: what came of each kind of file, in results/damage_drill.md.

Takes every how many-th case to run, all by default, and in how many processes, one a core by
default; the report is written as it goes.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from support import environment  # noqa: F401  first: sets what torch reads when it is imported

# isort: split
import torch

from support.damage import (
    CONDITIONS,
    DELETED,
    ENDS,
    KINDS,
    SWAPPED,
    WAYS,
    Case,
    Drill,
    Outcome,
    what,
)

RESULTS = Path(__file__).parent / "results" / "damage_drill.md"
EVERY = 100  # cases between two writings of the report


def main(step: int = 1, jobs: int = os.cpu_count() or 1) -> None:
    outcomes: list[Outcome] = []
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        multiprocessing.get_context("spawn").Pool(jobs) as processes,
    ):
        everything = list(_drill(folder).cases())
        cases = everything[::step]
        ran = processes.imap_unordered(functools.partial(run, folder), cases)
        for number, outcome in enumerate(ran, 1):
            outcomes.append(outcome)
            if outcome.end in ENDS[3:]:
                print(f"{outcome.case}: {outcome.end}\n{outcome.text}", flush=True)
            if number % EVERY == 0 or number == len(cases):
                told = report(outcomes, len(everything), step, time.monotonic() - began)
                RESULTS.write_text(told, encoding="utf-8")
                print(f"{number} of {len(cases)}", flush=True)
    bad = sum(outcome.end in ENDS[3:] for outcome in outcomes)
    sys.exit(f"{bad} cases end as none may" if bad else 0)


@functools.cache
def _drill(folder: str) -> Drill:
    """This process's, of the stores in the folder."""
    torch.set_num_threads(1)
    return Drill(Path(folder))


def run(folder: str, case: Case) -> Outcome:
    """What came of one case of the stores in a folder."""
    return _drill(folder).run(case)


def report(outcomes: list[Outcome], total: int, step: int, seconds: float) -> str:
    """How cases ended, by what the file held, by the store, and by the way of damage."""
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    lines = [
        "# Damage drill",
        "",
        f"`OMP_NUM_THREADS=1 .venv/bin/python tests/bench/damage_drill.py {step}` on "
        f"{platform.machine()}, {os.cpu_count()} cores shared with other work (load {load}), "
        f"{seconds / 60:.0f} minutes.",
        f"{len(outcomes)} of {total} cases, evenly spread. All are every file of stores of tiny "
        f"renders ({', '.join(KINDS)}; each {', '.join(CONDITIONS)}),",
        f"damaged in {len(WAYS) + 2} ways, then verified, looked at, exported and resumed. Same "
        "bytes: what was damaged does not count.",
        "Drawn again: found, told and made again, to the same bytes. One line: refused. An export "
        "before the resume was refused as well, or right.",
        "",
    ]
    files = sorted({what(outcome.case.name) for outcome in outcomes})
    lines += table("file", files, outcomes, lambda outcome: what(outcome.case.name))
    stores = [f"{kind}, {condition}" for kind in KINDS for condition in CONDITIONS]
    lines += table("store", stores, outcomes, lambda o: f"{o.case.kind}, {o.case.condition}")
    lines += table("damage", [*WAYS, DELETED, SWAPPED], outcomes, lambda o: o.case.way)
    refused = Counter(what(outcome.case.name) for outcome in outcomes if outcome.end == ENDS[2])
    lines += [f"One line: {', '.join(f'{count} of {name}' for name, count in refused.items())}."]
    return "\n".join([*lines, ""])


def table(head: str, names: list[str], outcomes: list[Outcome], key: object) -> list[str]:
    """How cases ended, a row for each name."""
    assert callable(key)
    counts = Counter((key(outcome), outcome.end) for outcome in outcomes)
    rows = [f"| {head} | cases | {' | '.join(ENDS)} |", "|---|" + "---:|" * (len(ENDS) + 1)]
    for name in [*names, "all"]:
        found = [
            sum(counts[each, end] for each in (names if name == "all" else [name])) for end in ENDS
        ]
        rows.append(f"| {name} | {sum(found)} | {' | '.join(map(str, found))} |")
    return [*rows, ""]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
