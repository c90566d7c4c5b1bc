"""Draws every kind of render whole and in two goes, again and again in one process, under load.

`PYTHONPATH=tests python tests/bench/determinism.py [--rounds N] [--kinds NAME ...] [--load N]`
draws each kind once and then N times more, each time stopped after a step drawn by lot and
resumed, while a thread of the process and as many processes as `--load` says are at work. It
tells the first tensor that differs, and exits with 1 if any did.
"""

from __future__ import annotations

from support import environment  # noqa: F401  first: sets what torch reads when it is imported

# isort: split
import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from support.renders import KINDS, Renders, difference, other_work, side_work

BUSY = "import time\nend = time.monotonic() + {}\nwhile time.monotonic() < end: sum(range(10**4))"


@contextmanager
def load(processes: int, seconds: float) -> Iterator[None]:
    """Inside, so many processes are busy; they end by themselves after `seconds`."""
    command = [sys.executable, "-c", BUSY.format(seconds)]
    running = [subprocess.Popen(command) for _ in range(processes)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def drill(kinds: Sequence[str], rounds: int, folder: Path, seed: int) -> int:
    """How many renders differed from the first of their kind."""
    renders, lot, num_bad = Renders(folder), random.Random(seed), 0
    first = {kind: renders.whole(kind) for kind in kinds}
    for number in range(rounds):
        for kind in lot.sample(kinds, len(kinds)):
            step = lot.randrange(1, renders.num_steps(kind) + 1)
            again = renders.in_two(kind, step, other_work)
            found, differs = difference(first[kind], again)
            is_bad = differs or found.first is not None
            num_bad += is_bad
            if is_bad:
                what = "pixels differ" if differs else "pixels are the same"
                print(f"round {number + 1}, {kind}, stopped after step {step}: {what}; {found}")
            shutil.rmtree(again)
        print(f"round {number + 1}: load {os.getloadavg()[0]:.1f}, {num_bad} differ", flush=True)
    return num_bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--load", type=int, default=2, help="busy processes beside this one")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(load(asked.load, 60.0 * asked.rounds * len(asked.kinds)))
        stack.enter_context(side_work())
        stack.enter_context(torch.no_grad())
        return 1 if drill(asked.kinds, asked.rounds, folder, asked.seed) else 0


if __name__ == "__main__":
    sys.exit(main())
