"""What a render costs beside stock diffusers: ratios measured in one run.

Prints a Markdown table: driver overhead per step, one-worker time against `FluxPipeline`, and
peak memory of decoding against canvas height. A row is printed only when its pictures agree.
"""

from __future__ import annotations

import itertools
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import FluxPipeline

from frieze.renderer import Event, RenderSpec, render
from frieze.renderer.checkpoints.checkpoint import describe, find
from frieze.renderer.store.store import Store

PROMPT = "a red sun over blue mountains at dusk"
SIDE = 512
STEPS = 8
REPEATS = 3


def spec(out: Path, **fields: object) -> RenderSpec:
    return RenderSpec(
        prompt=PROMPT,
        height=SIDE,
        width=SIDE,
        num_inference_steps=STEPS,
        method="none",  # the stock pipeline's
        local=True,
        out=str(out),
        overwrite=True,
        shift=describe("demo").schedule.options["shift"],
        **fields,
    )


def stock_seconds(pipeline: FluxPipeline) -> tuple[float, np.ndarray]:
    began = time.perf_counter()
    image = pipeline(
        PROMPT,
        height=SIDE,
        width=SIDE,
        num_inference_steps=STEPS,
        max_sequence_length=describe("demo").max_sequence_length,
        generator=torch.Generator().manual_seed(0),
    ).images[0]
    return time.perf_counter() - began, np.asarray(image)


def frieze_seconds(out: Path, workers: int) -> tuple[float, float, np.ndarray]:
    """Wall seconds from the first event to the last, driver overhead per step, and the pixels."""
    times: list[tuple[str, float, float]] = []

    def listen(event: Event) -> None:
        times.append((event.kind, time.perf_counter(), event.seconds))

    render(spec(out, workers=workers), on_event=listen)
    began = next(at for kind, at, _ in times if kind == "stage")
    ended = times[-1][1]
    store = Store.open(str(out))
    picture = np.concatenate([rows for _, rows in store.in_order()])
    return ended - began, overhead_of(times), picture


def overhead_of(times: list[tuple[str, float, float]]) -> float:
    """Median seconds from one step's end to the next's that were not the slowest rank's.

    From (kind, when, seconds) of every event: journal, log, metrics and messages are in it.
    """
    marks = [(at, seconds) for kind, at, seconds in times if kind in ("stage", "step")]
    between = itertools.pairwise(marks)
    return statistics.median((at - before) - seconds for (before, _), (at, seconds) in between)


def ray_overhead(out: Path, workers: int) -> tuple[float, float]:
    """The same of a render on Ray, and what of it is the call to the ranks and their answer."""
    times: list[tuple[str, float, float]] = []
    trips: list[float] = []

    def listen(event: Event) -> None:
        times.append((event.kind, time.perf_counter(), event.seconds))
        trips.append(event.facts.get("driver", 0.0) if event.kind == "step" else 0.0)

    fields = {"height": 256, "width": 256, "num_inference_steps": 24, "local": False}
    render(spec(out, workers=workers).model_copy(update=fields), on_event=listen)
    return overhead_of(times), statistics.median(trip for trip in trips if trip)


def main() -> None:
    pipeline = FluxPipeline.from_pretrained(find("demo"), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "a.zarr"
        frieze_seconds(out, 1)
        stock_seconds(pipeline)
        stock, ours, overheads = [], [], []
        for _ in range(REPEATS):
            seconds, reference = stock_seconds(pipeline)
            stock.append(seconds)
            seconds, overhead, picture = frieze_seconds(out, 1)
            ours.append(seconds)
            overheads.append(overhead)
        assert np.abs(picture.astype(int) - reference).max() <= 1, "pictures differ: no timing"
        _, overhead_two, _ = frieze_seconds(out, 2)
        on_ray = {workers: ray_overhead(out, workers) for workers in (2, 4)}
    ratio = statistics.median(ours) / statistics.median(stock)
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, ")
    print(f"torch {torch.__version__}, demo model, {SIDE}x{SIDE}, {STEPS} steps, float32\n")
    print("| what | measured | bar |\n|---|---|---|")
    print(f"| one worker / stock FluxPipeline, denoise + decode + write | {ratio:.3f} | 1.05 |")
    print(f"| driver overhead per step, 1 worker | {statistics.median(overheads) * 1e3:.1f} ms | |")
    print(f"| driver overhead per step, 2 workers | {overhead_two * 1e3:.1f} ms | |")
    for workers, (overhead, trip) in on_ray.items():
        what = f"driver overhead per step, {workers} workers on Ray (of it Ray's round trip)"
        measured = f"{overhead * 1e3:.1f} ms ({trip * 1e3:.1f} ms)"
        print(f"| {what} | {measured} | {5 + workers} ms |")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
