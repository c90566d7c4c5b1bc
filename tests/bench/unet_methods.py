"""What methods for UNets cost beside drawing directly, at two and four times the trained side.

A step of the method and one of the plain network are taken in turns, in the same process and from
latents that stay the same, for every kind of step that the method has; the whole is their sum over
a render's steps. Ratios are of processor time of one thread: the wall time of an idle core,
whatever else runs. The first row is the control, the plain model beside itself. A row is printed
only where its method leaves the trained size alone, bit by bit, and changes a larger picture.

Models: the demo's UNet; and SDXL's at a tenth of its width, of random weights, whose attention is
as large a part of a step as SDXL's own.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from policies import interval, is_right, ratios
from policy_models import sdxl_tenth
from policy_stand import Stand, one_thread

from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.extrapolation.convolutions import raunet_schedule
from frieze.renderer.spec.render_spec import RenderSpec

STEPS, RESTART = 10, 0.3
SINGLE = ({"scale": 1.0, "start": 1.0},)
# As published for SDXL at 2048 pixels, and at 4096.
SCHEDULES: Mapping[int, Mapping[str, Any]] = {
    2: {"schedule": "aggressive", "strided": 8 / 50, "pooled": 0.4},
    4: {"schedule": "progressive", "strided": 0.3, "pooled": 0.7},
}
PAIRS = {2: 6, 4: 2}
BARE = {"dilation": False, "free_u": False}
KINDS = ("strided", "pooled", "neither")


@dataclass(frozen=True)
class Row:
    """A method with options; `raunet`: its steps are of several kinds."""

    name: str
    method: str = "none"
    options: Mapping[str, Any] = field(default_factory=dict)
    raunet: bool = False


def rows(scale: int) -> list[Row]:
    """What is timed; the first is the control."""
    own = SCHEDULES[scale]
    return [
        Row("direct (control)"),
        Row("hidiffusion", "hidiffusion", own, raunet=True),
        Row("hidiffusion, RAU-Net alone", "hidiffusion", {**own, "windows": False}, raunet=True),
        Row("hidiffusion, windows alone", "hidiffusion", {"raunet": False}),
        Row("cinescale, fusion alone", "cinescale", BARE),
        Row("cinescale, fusion alone, fast", "cinescale", {**BARE, "fast": True}),
        Row("cinescale, a step of its last stage", "cinescale"),
    ]


def kinds(row: Row, scale: int, cells: int) -> dict[str, tuple[int, int]]:
    """Of each kind of step its first one and how many there are."""
    if not row.raunet:
        steps = STEPS - int(RESTART * STEPS) if row.method == "cinescale" else STEPS
        return {"neither": (1, steps)}
    own = SCHEDULES[scale]
    shares = {name: own[name] for name in ("strided", "pooled")}
    schedule = raunet_schedule("sdxl", (cells, cells), STEPS, own["schedule"], **shares)
    found = [
        next((kind for kind in KINDS[:2] if _within(getattr(schedule, kind), step)), "neither")
        for step in range(STEPS)
    ]
    return {kind: (found.index(kind), number) for kind, number in Counter(found).items()}


def _within(steps: tuple[int, int], step: int) -> bool:
    return steps[0] <= step < steps[1]


class Bench:
    """A model at a multiple of its trained side; stands are made in `folder`."""

    def __init__(self, model: str, scale: int, folder: Path) -> None:
        facts = describe(model)
        self.model, self.scale, self.folder = model, scale, folder
        self.trained = facts.training_size
        self.cells = scale * self.trained // facts.latent.downscale

    def stands(self, row: Row) -> tuple[Stand, Stand]:
        """A row's at the trained size, and at the larger."""
        return self._stand(row, 1), self._stand(row, self.scale)

    def _stand(self, row: Row, scale: int) -> Stand:
        stages: Any = SINGLE
        if row.method == "cinescale" and scale > 1:
            first, last = {"scale": 1 / scale, "steps": 1}, int((1 - RESTART) * STEPS)
            stages = (first, {"scale": 1.0, "start": 1 - RESTART, "steps": last})
        spec = RenderSpec(
            model=self.model,
            prompt="a red sun over blue mountains at dusk",
            method=row.method,
            method_options=dict(row.options),
            height=scale * self.trained,
            width=scale * self.trained,
            stages=stages,
            num_inference_steps=STEPS,
            guidance_scale=1.0,
            dtype="float32",
            local=True,
        )
        return Stand(spec, Path(tempfile.mkdtemp(dir=self.folder)))

    def lines(self, pairs: int) -> Iterator[str]:
        """The table's."""
        plain = self.stands(Row("plain"))
        ms = 1e3 * statistics.median(plain[1].step() for _ in range(3))
        side = self.scale * self.trained
        yield f"\n## {Path(self.model).name}, {side}x{side}, {self.scale} times its trained side\n"
        yield f"A plain step takes {ms:.0f} ms. Parts of that:\n"
        yield "| row | strided | pooled | neither | whole | 95 % | times faster |"
        yield "|---|---|---|---|---|---|---|"
        for row in rows(self.scale):
            other = self.stands(row)
            if row.method != "none" and not is_right(plain, other):
                sys.exit(f"no timing: {row.name} changed the trained size, or nothing beyond it")
            yield self._line(row, plain[1], other[1], pairs)

    def _line(self, row: Row, plain: Stand, other: Stand, pairs: int) -> str:
        steps = kinds(row, self.scale, self.cells)
        found = {kind: ratios(plain, other, pairs, step) for kind, (step, _) in steps.items()}
        total = sum(number for _, number in steps.values())
        weights = {kind: number / total for kind, (_, number) in steps.items()}
        whole = [sum(weights[kind] * found[kind][pair] for kind in found) for pair in range(pairs)]
        cells = [f"{statistics.median(found[kind]):.2f}" if kind in found else "" for kind in KINDS]
        low, high = interval(whole)
        middle = statistics.median(whole)
        shown = " | ".join(cells)
        return (
            f"| {row.name} | {shown} | {middle:.2f} | {low:.2f} .. {high:.2f} | {1 / middle:.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="demo-unet,sdxl-tenth")
    parser.add_argument("--scales", type=int, nargs="*", default=(2, 4), choices=(2, 4))
    parser.add_argument("--pairs", type=int, help="of every kind of step; default: by the size")
    parser.add_argument("--out", type=Path, help="a file that the tables are written to, too")
    chosen = parser.parse_args()
    one_thread()
    load = ", ".join(f"{n:.1f}" for n in os.getloadavg())
    where = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores (load {load})"
    lines = [f"# What methods for UNets cost\n\n{where}, 1 thread, torch {torch.__version__}."]
    print(lines[0], flush=True)
    for name in chosen.models.split(","):
        for scale in chosen.scales:
            with tempfile.TemporaryDirectory(prefix="frieze-unets-") as folder:
                made = name if name == "demo-unet" else str(sdxl_tenth(Path(folder, name)))
                for line in Bench(made, scale, Path(folder)).lines(chosen.pairs or PAIRS[scale]):
                    lines.append(line)
                    print(line, flush=True)
    if chosen.out is not None:
        chosen.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
