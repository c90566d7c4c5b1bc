"""Input that nobody meant, by kind, as a table: tests/bench/results/fuzz.md.

Takes the number of examples of each kind, 10,000 by default: hours on two cores.
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
import torch

from support.fuzz_kinds import kinds
from support.fuzzing import Tally, tally

RESULTS = Path(__file__).parent / "results" / "fuzz.md"


def main(number: int = 10_000) -> None:
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    found: list[Tally] = []
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        for kind in kinds(Path(name)):
            found.append(tally(kind, number))
            print(found[-1].row(), found[-1].told(), flush=True)
            RESULTS.write_text(report(found, number), encoding="utf-8")
        os.chdir("/")


def report(found: list[Tally], number: int) -> str:
    """The table."""
    lines = [
        "# Input that nobody meant",
        "",
        f"`.venv/bin/python tests/bench/fuzz.py {number}` on {platform.machine()}. Accepted input "
        "was planned, and of models that are drawn with drawn; damaged pictures, clips and "
        "stores have tests of their own.",
        "",
        "| kind | tried | accepted | one line | traceback |",
        "|---|---|---|---|---|",
        *(each.row() for each in found),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
