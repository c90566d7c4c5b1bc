"""What methods cost beside the plain model: ratios of processor time, measured in one run.

Prints a Markdown table: a step's time by method, and EAAC's probe, which its first step adds, as a
part of a render of 20 steps. A row is printed only where its method leaves the trained size alone,
bit by bit, and changes a larger picture.
"""

from __future__ import annotations

import contextlib
import itertools
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from frieze.renderer import RenderSpec, render
from frieze.renderer.errors import RenderCancelledError
from frieze.renderer.render import RenderHandle

PROMPT = "a red sun over blue mountains at dusk"
TRAINED, SIDE = 256, 512
STEPS, REPEATS = 6, 5
# The probe is paid once in a render of so many steps.
RENDER = 20
METHODS: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "pi": {"cascade": False},
    "ntk": {},
    "yarn": {},
    "dype": {},
    "rdfc": {},
    "proportional": {},
    "eaac": {},
    "sega": {},
}


def steps(method: str, side: int, num_steps: int) -> tuple[list[float], Tensor]:
    """Processor seconds of every step of one stage, and the latents after the last."""
    marks, kept = [], []

    def after(handle: RenderHandle, step: int, *_: Any) -> None:
        marks.append(time.process_time())
        if step + 1 == num_steps:
            kept.append(handle.latents())
            handle.interrupt = True

    def begin(event: Any) -> None:
        if event.kind == "stage":
            marks.append(time.process_time())

    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(RenderCancelledError):
        spec = RenderSpec(
            prompt=PROMPT,
            height=side,
            width=side,
            method=method,
            method_options=dict(METHODS[method]),
            stages=({"scale": 1.0},),
            num_inference_steps=num_steps,
            save_every=num_steps,
            local=True,
            out=str(Path(folder) / "a.zarr"),
        )
        render(spec, callback_on_step_end=after, on_event=begin)
    return [b - a for a, b in itertools.pairwise(marks)], kept[0]


def is_right(method: str) -> bool:
    """Whether a method is the identity at the trained size and shows at twice of it."""
    same, larger = (
        torch.equal(*(steps(name, side, 2)[1] for name in (method, "none")))
        for side in (TRAINED, SIDE)
    )
    return same and (not larger or method == "none")


def main() -> None:
    torch.set_num_threads(1)
    wrong = [method for method in METHODS if not is_right(method)]
    if wrong:
        sys.exit(f"no timing: {', '.join(wrong)} changed the trained size, or nothing beyond it")
    first: dict[str, list[float]] = {method: [] for method in METHODS}
    later: dict[str, list[float]] = {method: [] for method in METHODS}
    for _ in range(REPEATS):  # in turns, so that other work on the machine meets all alike
        for method in METHODS:
            seconds, _ = steps(method, SIDE, STEPS)
            first[method].append(seconds[0])
            later[method] += seconds[1:-1]  # the last one saves
    plain = statistics.median(later["none"])
    probe = statistics.median(first["eaac"]) - statistics.median(first["none"])
    print(f"{platform.processor() or platform.machine()}, 1 thread, torch {torch.__version__}, ")
    print(f"demo model, {SIDE}x{SIDE}, a step of the plain model {plain * 1e3:.0f} ms\n")
    print("| what | measured | bar |\n|---|---|---|")
    for method in METHODS:
        if method != "none":
            ratio = statistics.median(later[method]) / plain
            print(f"| a step of {method} / of the plain model | {ratio:.3f} | 1.01 |")
    print(f"| EAAC's probe / {RENDER} steps | {probe / (RENDER * plain):.3f} | 0.03 |")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
