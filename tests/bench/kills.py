"""Commands killed at random moments, as a report in tests/bench/results/kills.md.

Takes the number of kills, 200 by default, and that of the first. Exits with 1 where a kill left
other pixels, a file, a process or a traceback behind.
"""

from __future__ import annotations

import os
import platform
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from support import environment  # noqa: F401  first: sets what torch reads when it is imported

# isort: split
from support.kills import Kills, Outcome, kinds

RESULTS = Path(__file__).parent / "results" / "kills.md"


def main(num_kills: int = 200, first: int = 0) -> int:
    outcomes: list[Outcome] = []
    every = kinds()
    with tempfile.TemporaryDirectory() as name:
        kills = Kills(Path(name))
        for number in range(first, first + num_kills):
            outcomes.append(kills.one(every[number % len(every)], number, random.Random(number)))
            print(number, outcomes[-1].row(), f"{outcomes[-1].seconds:.0f} s", flush=True)
            RESULTS.write_text(report(outcomes), encoding="utf-8")
    return int(any(outcome.faults for outcome in outcomes))


def report(outcomes: list[Outcome]) -> str:
    """A line for each kind, then every kill that left something behind."""
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    lines = [
        "# Kills at random moments",
        "",
        f"`.venv/bin/python tests/bench/kills.py` on {platform.machine()}, {os.cpu_count()} cores "
        f"shared with other work (load {load}).",
        f"{len(outcomes)} commands as processes of their own on the demo model, killed at a moment "
        "drawn evenly from the",
        "time that the same command takes undisturbed, its start included (without it where it "
        "was *started before*, by a fork). Then the work is "
        "finished by the command that",
        "Frieze names; pixels of all levels are compared with the undisturbed ones, and so are the "
        "names of all files, and",
        "processes are looked for. *In start-up*: before there was a store or a target.",
        "",
        "| killed | times | in start-up | done before | same bytes, nothing left | faults |",
        "|---|---|---|---|---|---|",
    ]
    by_kind = {o.kind: [each for each in outcomes if each.kind == o.kind] for o in outcomes}
    lines += [summary(kind, mine) for kind, mine in by_kind.items()]
    lines.append(summary("all", outcomes))
    if wrong := [outcome.row() for outcome in outcomes if outcome.faults]:
        lines += ["", "| killed | after | begun | end |", "|---|---|---|---|", *wrong]
    return "\n".join([*lines, ""])


def summary(kind: str, outcomes: list[Outcome]) -> str:
    count = Counter(
        start=sum(o.hit and not o.begun for o in outcomes),
        done=sum(not o.hit for o in outcomes),
        right=sum(not o.faults for o in outcomes),
    )
    cells = (len(outcomes), count["start"], count["done"], count["right"])
    return f"| {kind} | " + " | ".join(map(str, (*cells, len(outcomes) - count["right"]))) + " |"


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
