"""What methods cost beside the plain model, step by step at equal size, in one run.

A step of the method and one of the plain model are taken in turns, in the same process and from
latents that stay the same, so that other work on the machine meets both alike: of the ratios of
processor time of neighbours the median is printed, with a bootstrap interval. Beside it stands what
does not depend on load: the share of a step that is spent in the method's own functions, and the
bytes that the tensor library reads and writes. A row is printed only where its method leaves the
trained size alone, bit by bit, and changes a larger picture. The first row is the control, the
plain model beside itself; where it strays as far as the bar, nothing is told of any method.

Models: the demo; `wide`, FLUX's width in two blocks of random weights; `clip`, Wan's layout 1024
wide, likewise; `flux`, FLUX's width in six blocks at its own sizes, for a GPU. `--models wide`
measures another than the demo, `--device cuda` on a GPU, by the clock and in bfloat16, `--out FILE`
writes the tables to it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from policy_models import clip, flux, wide
from policy_stand import Stand, one_thread

from frieze.renderer import plugins
from frieze.renderer.spec.render_spec import RenderSpec

PROMPT = "a red sun over blue mountains at dusk"
# The probe is paid once in a render of so many steps.
RENDER = 20
BAR, PROBE_BAR = 1.01, 0.03
LABELS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "pi": ("pi", {}),
    "pi at once": ("pi", {"cascade": False}),
    "ultraimage": ("ultraimage", {}),
    "ultraimage, resolution": ("ultraimage", {"mode": "resolution"}),
    "ultraimage, view": ("ultraimage", {"mode": "view"}),
    **{
        name: (name, {})
        for name in plugins.names("methods")
        if name not in ("none", "pi", "ultraimage", "riflex", "ultravico")
    },
}
# `sega` changes rows and columns alone.
CLIPS = {name: (name, {}) for name in ("riflex", "ultravico", "ntk", "eaac")}


@dataclass(frozen=True)
class Bench:
    """A model, what it draws, the trained size of the same, and how many pairs are measured."""

    model: str
    methods: Mapping[str, tuple[str, Mapping[str, Any]]]
    large: Mapping[str, Any]
    trained: Mapping[str, Any]
    pairs: int
    device: str = "cpu"

    def spec(self, method: str, options: Mapping[str, Any], **fields: Any) -> RenderSpec:
        return RenderSpec(
            model=self.model,
            prompt=PROMPT,
            method=method,
            method_options=dict(options),
            num_inference_steps=6,
            local=True,
            device=self.device,
            dtype="float32" if self.device == "cpu" else "bfloat16",
            **fields,
        )


@contextlib.contextmanager
def benches(
    names: Sequence[str], pairs: int | None, device: str = "cpu"
) -> Iterator[dict[str, Bench]]:
    """Those that were asked for; random checkpoints live as long as this."""
    with tempfile.TemporaryDirectory(prefix="frieze-policies-") as folder:
        found = {}
        if "demo" in names:
            sizes = ({"height": 512, "width": 512}, {"height": 256, "width": 256})
            found["demo"] = Bench("demo", LABELS, *sizes, pairs or 20, device)
        if "wide" in names:
            sizes = ({"height": 256, "width": 256}, {"height": 128, "width": 128})
            made = str(wide(Path(folder) / "wide"))
            found["wide"] = Bench(made, LABELS, *sizes, pairs or 6, device)
        if "clip" in names:
            size = {"height": 64, "width": 64}
            frames = ({"num_frames": 161, **size}, {"num_frames": 81, **size})
            made = str(clip(Path(folder) / "clip"))
            found["clip"] = Bench(made, CLIPS, *frames, pairs or 6, device)
        if "flux" in names:
            sizes = ({"height": 2048, "width": 2048}, {"height": 1024, "width": 1024})
            made = str(flux(Path(folder) / "flux", device))
            found["flux"] = Bench(made, LABELS, *sizes, pairs or 6, device)
        yield found


def interval(values: Sequence[float], draws: int = 2000) -> tuple[float, float]:
    """Between which the median lies in 95 of 100 resamplings."""
    chance = random.Random(0)
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(draws))
    return medians[round(0.025 * draws)], medians[round(0.975 * draws) - 1]


def ratios(plain: Stand, other: Stand, pairs: int, index: int = 1) -> list[float]:
    """A step of the other / of the plain model, neighbours in time, each first in turn."""
    found = []
    for pair in range(pairs):
        if pair % 2:
            before = plain.step(index)
            found.append(other.step(index) / before)
        else:
            after = other.step(index)
            found.append(after / plain.step(index))
    return found


def is_right(plain: tuple[Stand, Stand], other: tuple[Stand, Stand]) -> bool:
    """Whether a method is the identity at the trained size, and shows beyond it."""
    for stands in (plain, other):
        for stand in stands:
            stand.step()
    same = torch.equal(plain[0].x_BCTHW, other[0].x_BCTHW)
    if len(other[1].plan.stages) > 1:  # other noise levels, other latents
        return same and other[1].plan.method != plain[1].plan.method
    return same and not torch.equal(plain[1].x_BCTHW, other[1].x_BCTHW)


def is_sharp(control: Sequence[float]) -> bool:
    """Whether the plain model beside itself is nearer to 1 than the bar, so that it can be told."""
    low, high = interval(control)
    return low >= 2 - BAR and high <= BAR


def row(
    label: str, bench: Bench, plain: Stand, other: Stand, found: Sequence[float], *, can_tell: bool
) -> str:
    """One line of the table, from the ratios of its steps."""
    low, high = interval(found)
    more = other.work().num_bytes / plain.work().num_bytes
    # On a GPU a function returns before its work is done.
    on_cpu = bench.device == "cpu"
    share = f"{100 * other.own_share(max(5, bench.pairs // 4)):.2f} %" if on_cpu else ""
    middle = statistics.median(found)
    verdict = "not told"
    if can_tell and not low <= BAR < high:
        verdict = "yes" if high <= BAR else "no"
    return (
        f"| {label} | {middle:.3f} | {low:.3f} .. {high:.3f} | {share} | {more:.4f} | {verdict} |"
    )


def table(name: str, bench: Bench, folder: Path) -> Iterator[str]:
    """The lines of one model's table."""

    def stand(label: str, sizes: Mapping[str, Any], method: str, options: Any = ()) -> Stand:
        place = folder / f"{name}-{label.replace(' ', '-')}-{sizes is bench.large}"
        place.mkdir()
        return Stand(bench.spec(method, dict(options), **sizes), place)

    plain = (stand("none", bench.trained, "none"), stand("none", bench.large, "none"))
    again = stand("again", bench.large, "none")
    size = "x".join(str(n) for n in bench.large.values())
    ms = 1e3 * statistics.median(plain[1].step() for _ in range(3))
    yield f"\n## {name}, {size}: a plain step takes {ms:.0f} ms\n"
    yield "| method | step / plain | 95 % | own functions | bytes / plain | <= 1.01 |"
    yield "|---|---|---|---|---|---|"
    control = ratios(plain[1], again, bench.pairs)
    can_tell = is_sharp(control)
    yield row("none (control)", bench, plain[1], again, control, can_tell=can_tell)
    for label, (method, options) in bench.methods.items():
        other = tuple(stand(label, s, method, options) for s in (bench.trained, bench.large))
        if not is_right(plain, other):
            sys.exit(f"no timing: {label} changed the trained size, or nothing beyond it")
        found = ratios(plain[1], other[1], bench.pairs)
        yield row(label, bench, plain[1], other[1], found, can_tell=can_tell)
        if method == "eaac":
            probes = [r - 1 for r in ratios(plain[1], other[1], bench.pairs, index=0)]
            low, high = (part / RENDER for part in interval(probes))
            middle = statistics.median(probes) / RENDER
            yield (
                f"| its probe / {RENDER} steps | {middle:.4f} | {low:.4f} .. {high:.4f} | | | "
                f"{'yes' if high <= PROBE_BAR else 'no'}, <= {PROBE_BAR} |"
            )


def heading(models: str, device: str) -> str:
    """Command, machine, commit."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    load = ", ".join(f"{n:.1f}" for n in os.getloadavg())
    command = f"tests/bench/policies.py --models {models} --device {device}"
    where = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores shared with "
    if device != "cpu":
        where = f"{torch.cuda.get_device_name(device)}, {where}"
    return (
        f"# What methods cost a step\n\n`PYTHONPATH=tests .venv/bin/python {command}` at {commit}, "
        f"on {where}other work (load {load}), 1 thread, torch {torch.__version__}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="demo")
    parser.add_argument("--methods", help="their names in the table, with semicolons; default: all")
    parser.add_argument("--pairs", type=int, help="of every method; default: by the model")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    one_thread()
    lines = [heading(chosen.models, chosen.device)]
    print(lines[0], flush=True)
    with benches(chosen.models.split(","), chosen.pairs, chosen.device) as found:
        wanted = chosen.methods.split(";") if chosen.methods else None
        for name, bench in found.items():
            if wanted is not None:
                kept = {label: bench.methods[label] for label in wanted if label in bench.methods}
                bench = dataclasses.replace(bench, methods=kept)
            with tempfile.TemporaryDirectory(prefix="frieze-stands-") as folder:
                for line in table(name, bench, Path(folder)):
                    lines.append(line)
                    print(line, flush=True)
    if chosen.out is not None:
        chosen.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
