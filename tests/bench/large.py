"""A model of FLUX.1's size with random weights, beside stock diffusers with the same weights.

Prints a Markdown table of one run: seconds of a step, seconds from the last step to the pixels,
peak memory of the device. Sizes are refused where the two pictures differ. On a GPU in bfloat16
with all 57 blocks and FLUX's own autoencoder; on a processor, which shows only that it runs, with
two blocks.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FluxPipeline
from diffusers.models.transformers.transformer_flux import FluxPosEmbed

from frieze.renderer import Event, RenderSpec, render
from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.store.store import Store
from frieze.renderer.worker import model_cache

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench.policy_models import flux_whole

PROMPT = "a red sun over blue mountains at dusk"
CUDA = torch.cuda.is_available()
DEVICE, DTYPE = ("cuda:0", torch.bfloat16) if CUDA else ("cpu", torch.float32)
BLOCKS = (19, 38) if CUDA else (1, 1)
SIZES = "1024x1024,2048x2048,4096x4096" if CUDA else "256x256"
# Rounding of bfloat16, through all blocks and the autoencoder: of the pixels' own spread.
ALIKE = 0.1


@dataclass(frozen=True)
class Figures:
    """Of one picture: seconds, bytes, pixels [H, W, 3]."""

    step: float
    decode: float
    peak: int
    pixels: np.ndarray


def fresh() -> float:
    """Now, when the device has nothing to do, and its peak is counted anew."""
    if CUDA:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return time.perf_counter()


def ours(folder: Path, width: int, height: int, steps: int) -> Figures:
    """A render in one stage, its pixels on disk."""
    steps_taken: list[float] = []
    marks: list[tuple[str, float]] = []

    def listen(event: Event) -> None:
        marks.append((event.kind, time.perf_counter()))
        if event.kind == "step":
            steps_taken.append(event.seconds)

    with tempfile.TemporaryDirectory() as place:
        out = f"{place}/a.zarr"
        fresh()
        render(spec(folder, width, height, steps, out), on_event=listen)
        pixels = np.concatenate([rows for _, rows in Store.open(out).in_order()])
    begun = max(at for kind, at in marks if kind in ("step", "save"))
    decode = next(at for kind, at in marks if kind == "done") - begun
    return Figures(statistics.median(steps_taken[1:]), decode, peak(), pixels)


def peak() -> int:
    """Bytes, of the device where it counts them."""
    return model_cache.peak_bytes(torch.device(DEVICE))


def spec(folder: Path, width: int, height: int, steps: int, out: str) -> RenderSpec:
    return RenderSpec(
        model=str(folder),
        prompt=PROMPT,
        width=width,
        height=height,
        num_inference_steps=steps,
        method="none",  # the stock pipeline's
        shift=describe(str(folder)).schedule.options["shift"],
        local=True,
        device=DEVICE,
        dtype=str(DTYPE).removeprefix("torch."),
        out=out,
    )


def stock(pipeline: Any, folder: Path, width: int, height: int, steps: int) -> Figures:
    """The same picture by diffusers, in memory."""
    marks = [fresh()]

    def listen(pipe: Any, index: int, timestep: Any, kept: dict[str, Any]) -> dict[str, Any]:
        if CUDA:
            torch.cuda.synchronize()
        marks.append(time.perf_counter())
        return kept

    with own_positions(pipeline.transformer):
        drawn = pipeline(
            PROMPT,
            width=width,
            height=height,
            num_inference_steps=steps,
            max_sequence_length=describe(str(folder)).max_sequence_length,
            generator=torch.Generator().manual_seed(0),
            callback_on_step_end=listen,
        ).images[0]
    ended = time.perf_counter()
    taken = [b - a for a, b in itertools.pairwise(marks[1:])]
    return Figures(statistics.median(taken), ended - marks[-1], peak(), np.asarray(drawn))


@contextlib.contextmanager
def own_positions(transformer: Any) -> Iterator[None]:
    """The transformer that both share turns to diffusers' rotary table."""
    table = transformer.pos_embed
    transformer.pos_embed = FluxPosEmbed(10000, transformer.config.axes_dims_rope)
    try:
        yield
    finally:
        transformer.pos_embed = table


def row(size: str, folder: Path, pipeline: Any, steps: int) -> str:
    """One line of the table."""
    width, height = map(int, size.split("x"))
    # Twice for small ones: the first picture of a size finds out which kernels are fast.
    for _ in range(2 if width * height <= 2048**2 else 1):
        one, other = (
            ours(folder, width, height, steps),
            stock(pipeline, folder, width, height, steps),
        )
    error = float((one.pixels.astype(float) - other.pixels).std() / other.pixels.std())
    if not error <= ALIKE:
        return f"| {size} | no timing: the pictures differ by {error:.2f} of their spread | | | |"
    figures = (
        f"{one.step:.3f} ({one.step / other.step:.3f})",
        f"{one.decode:.2f} ({one.decode / other.decode:.2f})",
        f"{one.peak / 2**30:.1f} ({one.peak / other.peak:.2f})",
        f"{error:.3f}",
    )
    return f"| {size} | {' | '.join(figures)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--steps", type=int, default=3)
    chosen = parser.parse_args()
    name = torch.cuda.get_device_name() if CUDA else platform.processor() or platform.machine()
    with tempfile.TemporaryDirectory(prefix="frieze-large-") as place:
        folder = flux_whole(Path(place) / "flux", BLOCKS, DEVICE, DTYPE)
        facts, first = describe(str(folder)), spec(Path(folder), 256, 256, 1, f"{place}/a.zarr")
        model: Any = model_cache.model(facts, first, torch.device(DEVICE))
        # The decoder that Frieze loaded hands out what its last norm takes.
        shared = {"transformer": model.transformer, "dtype": DTYPE}
        pipeline = FluxPipeline.from_pretrained(folder, **shared).to(DEVICE)
        pipeline.set_progress_bar_config(disable=True)
        weights = sum(p.numel() for p in model.transformer.parameters()) / 1e9
        print(f"{name}, torch {torch.__version__}; {BLOCKS[0]} double and {BLOCKS[1]} single")
        print(
            f"blocks, {weights:.1f} billion weights, {DTYPE}; in brackets the ratio to diffusers\n"
        )
        print("| size | step, s | decode and write, s | peak, GiB | pictures differ |")
        print("|---|---|---|---|---|", flush=True)
        for size in chosen.sizes.split(","):
            print(row(size, folder, pipeline, chosen.steps), flush=True)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
