"""Input that nobody meant, by kind, as a table: tests/bench/results/fuzz.md.

Takes the number of examples of each kind, 10,000 by default: hours on two cores. `--kinds` names
those to try. Each has a process of its own and is tried in rounds of other examples; its row is
written after every round, and a later call goes on from there (`--anew`: from nothing).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from support import environment  # noqa: F401  first: sets what torch reads when it is imported

# isort: split
import torch

from support.fuzz_kinds import NAMES, kinds
from support.fuzzing import Tally, tallies

RESULTS = Path(__file__).parent / "results" / "fuzz.md"


def rounds(name: str, tried: int, number: int) -> None:
    """Try one kind, and print a tally of all after each round as a line of JSON."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        kind = next(kind for kind in kinds(Path(folder)) if kind.name == name)
        for found in tallies(kind, number, tried):
            print(json.dumps(vars(found)), flush=True)
        os.chdir("/")


def measured(text: str) -> dict[str, Tally]:
    """The tallies of a table, by kind; faults of an earlier call are counted and no more."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    found = {}
    for row in rows:
        if row[0] in NAMES:
            tried, accepted, one_line, faults = map(int, row[1:])
            found[row[0]] = Tally(
                row[0], tried, accepted, one_line, ["of an earlier call"] * faults
            )
    return found


def report(found: dict[str, Tally]) -> str:
    """The table, in the order of the kinds."""
    lines = [
        "# Input that nobody meant",
        "",
        f"`.venv/bin/python tests/bench/fuzz.py` on {platform.machine()}, as many of each kind as "
        "the table says. Accepted input",
        "was planned, read or written as its kind is used; of *models that are drawn with* a "
        "picture was drawn. *One line*: refused in",
        "one printable line of at most 1,200 letters.",
        "",
        "| kind | tried | accepted | one line | traceback |",
        "|---|---|---|---|---|",
        *(found[name].row() for name in NAMES if name in found),
        "",
    ]
    return "\n".join(lines)


def main(number: int, names: list[str], *, anew: bool) -> int:
    found = measured(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in names:
        total = Tally(name) if anew else found.get(name, Tally(name))
        words = [
            sys.executable,
            __file__,
            str(number),
            "--kinds",
            name,
            "--tried",
            str(total.tried),
        ]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if not line.startswith('{"kind"'):
                    continue
                total += Tally(**json.loads(line))
                found[name] = total
                RESULTS.write_text(report(found), encoding="utf-8")
                print(total.row(), flush=True)
        print(total.told(), flush=True)
    return int(any(found[name].faults for name in names if name in found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("number", nargs="?", type=int, default=10_000)
    parser.add_argument("--kinds", nargs="*", choices=NAMES, default=[*NAMES])
    parser.add_argument("--anew", action="store_true")
    parser.add_argument("--tried", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.tried is not None:
        rounds(given.kinds[0], given.tried, given.number)
    else:
        sys.exit(main(given.number, given.kinds, anew=given.anew))
