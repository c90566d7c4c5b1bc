"""A step of the demo model by what its attention asks: the canvas, pooled context, windows.

`python tests/bench/attend.py`: seconds of a step on one thread beside those of full attention at
the same size, in one run, and the FLOPs that plans count. At a size all choices are drawn in turn,
and the least of a choice's steps counts. A row is printed only when its picture is whole.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench.quality_report import machine
from frieze.kernels.work import Work
from frieze.renderer import Event, RenderSpec, render
from frieze.renderer.planning.plan import plan
from frieze.renderer.store.store import Store

SIDES = "512,1024,2048"
CHOICES = "full,pooled,shifted,windows,fused"
STEPS = 3


def spec_of(side: int, attend: str, out: Path) -> RenderSpec:
    """A few steps at a size, in one stage."""
    return RenderSpec(
        prompt="a red sun over blue mountains",
        height=side,
        width=side,
        method="pi",
        attend=attend,
        stages=({"scale": 1.0, "start": 1.0},),
        num_inference_steps=STEPS,
        local=True,
        out=str(out),
        overwrite=True,
    )


def seconds(spec: RenderSpec) -> list[float]:
    """Of each step but the first, which waits for what is made once."""
    ends: list[float] = []

    def on_event(event: Event) -> None:
        if event.kind == "step":
            ends.append(time.perf_counter())

    render(spec, on_event=on_event)
    if not Store.open(spec.out).is_complete:
        raise SystemExit(f"{spec.out} is not whole: no timing")
    return [b - a for a, b in itertools.pairwise(ends)]


def work_of(spec: RenderSpec) -> Work:
    """What a step asks, by the plan."""
    (kind, *_) = plan(spec).cost.stages[0].kinds
    return kind.ranks[0].work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", default=SIDES)
    parser.add_argument("--choices", default=CHOICES)
    parser.add_argument("--runs", type=int, default=2, help="of each; the quickest step counts")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{machine()}, one thread, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}\n")
    heads = ("side", "attends", "s a step", "to full", "attention, TFLOP", "to full")
    print(f"| {' | '.join((*heads, 'step, TFLOP', 'to full'))} |")
    print("|---" * (len(heads) + 2) + "|")
    with tempfile.TemporaryDirectory() as folder:
        for side in map(int, asked.sides.split(",")):
            choices = asked.choices.split(",")
            specs = {each: spec_of(side, each, Path(folder) / "a.zarr") for each in choices}
            took = {each: [float("inf")] for each in choices}
            for _ in range(asked.runs):
                for each, spec in specs.items():
                    took[each] += seconds(spec)
            full = work_of(specs["full"])
            for each, spec in specs.items():
                work, least = work_of(spec), min(took[each])
                cells = (
                    f"{least:.2f}",
                    f"{least / min(took['full']):.3f}",
                    f"{work.attention / 1e12:.4f}",
                    f"{work.attention / full.attention:.3f}",
                    f"{work.flops / 1e12:.4f}",
                    f"{work.flops / full.flops:.3f}",
                )
                print(f"| {side} | {each} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
