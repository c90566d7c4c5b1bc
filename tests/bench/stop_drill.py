"""Signals at moments of commands' work: seconds until they have ended, and what they leave.

Writes tests/bench/results/stop_drill.md; takes the number of rounds, one by default.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from support import environment  # noqa: F401  first: sets what torch reads when it is imported

# isort: split
from support.kills import Kills
from support.s3_server import S3Server, without_variables
from support.stops import Ending, one, stops

RESULTS = Path(__file__).parent / "results" / "stop_drill.md"


def main(num_rounds: int = 1) -> None:
    endings: list[Ending] = []
    server = S3Server()
    server.make_bucket()
    with tempfile.TemporaryDirectory() as name, without_variables():
        os.environ |= server.variables
        kills = Kills(Path(name))
        for number in range(num_rounds * len(stops())):
            endings.append(one(kills, stops()[number % len(stops())], number))
            print(endings[-1].row(), flush=True)
            RESULTS.write_text(report(endings), encoding="utf-8")
    server.stop()


def report(endings: list[Ending]) -> str:
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    wrong = sum(bool(ending.faults) for ending in endings)
    lines = [
        "# Signals at moments of work",
        "",
        f"`.venv/bin/python tests/bench/stop_drill.py` on {platform.machine()}, {os.cpu_count()} "
        f"cores shared with other work (load {load}).",
        f"{len(endings)} commands as processes of their own on the demo model, 384 x 384 in 3 "
        "steps, on two workers; the bucket is moto's. Seconds count from the signal to the",
        "end of the process: before the first step at once, then at the end of the step under "
        f"way. {wrong} ended otherwise than in one line, left something or drew other bytes.",
        "",
        "| command, signal, moment | ended after | what it left |",
        "|---|---|---|",
    ]
    return "\n".join([*lines, *(ending.row() for ending in endings), ""])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
