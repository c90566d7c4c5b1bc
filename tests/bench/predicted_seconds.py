"""Seconds that plans predict beside those that renders take: three small models, 1 and 2 ranks.

Prints a Markdown table; the rates are measured first, in a cache folder of its own. The goal is
25 % on a quiet machine: the load is told, for on a busy one renders take longer than they need to.
A row is printed only when its picture is whole.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import checkpoints
from frieze.renderer import RenderSpec, render
from frieze.renderer.costs.device_kinds import keep, kind_here
from frieze.renderer.monitoring import run_log
from frieze.renderer.monitoring.calibration import rates
from frieze.renderer.monitoring.prediction import Accuracy, of_facts
from frieze.renderer.store.store import Store

STEPS = 4
GOAL = 0.25


def cases(folder: Path) -> list[RenderSpec]:
    """Twelve renders: the demo, its UNet and a tiny clip's model at two sizes."""
    wan = str(checkpoints.build("wan", folder / "wan"))
    of_models = [("demo", 256, 1), ("demo", 512, 1), ("demo-unet", 256, 1), ("demo-unet", 512, 1)]
    return [
        RenderSpec(
            prompt="a red sun over blue mountains",
            model=model,
            height=size,
            width=size,
            num_frames=frames,
            num_inference_steps=STEPS,
            method="none",
            workers=workers,
            local=True,
            device="cpu",
            overwrite=True,
            out=str(folder / "a.zarr"),
        )
        for model, size, frames in (*of_models, (wan, 96, 9), (wan, 192, 9))
        for workers in (1, 2)
    ]


def accuracy(spec: RenderSpec) -> Accuracy:
    """What a render's log says of its prediction; raises where it drew nothing."""
    render(spec)
    store = Store.open(spec.out)
    if not store.is_complete:
        raise SystemExit(f"{spec.out} is not whole: no timing")
    return next(found for line in run_log.read(store.path) if (found := of_facts(line)))


def main() -> None:
    """Measures the rates, draws all twice, and prints the second time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="of measuring each rate")
    parser.add_argument("--runs", type=int, default=2, help="of each render; the quickest counts")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        found = rates("cpu", "float32", told.seconds)
        kind = kind_here("cpu")
        keep(kind, "", [found])
        print(f"{kind}: {found.line()}\n")
        print("| model | size | ranks | predicted | took | off | load |")
        print("|---|---|---|---|---|---|---|")
        offs = []
        for spec in cases(folder):
            best = min((accuracy(spec) for _ in range(told.runs)), key=lambda each: each.took)
            load = os.getloadavg()[0]
            offs.append(abs(best.off))
            model = Path(spec.model).name
            print(
                f"| {model} | {spec.width} | {spec.workers} | {best.predicted:.2f} s | "
                f"{best.took:.2f} s | {best.off:+.0%} | {load:.1f} |",
                flush=True,
            )
    within = sum(off <= GOAL for off in offs)
    print(f"\n{within} of {len(offs)} within {GOAL:.0%}; median {statistics.median(offs):.0%}")


if __name__ == "__main__":
    main()
