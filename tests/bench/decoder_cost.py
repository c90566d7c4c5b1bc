"""What a picture costs beyond its latent: InfGen, the exact decode and `auto`, and FLUX's width.

`python tests/bench/decoder_cost.py [DECODER]`: seconds and FLOPs a megapixel on one thread, in one
run; what would take more than `--minutes` at the rate seen before is counted, not timed. Then
memory against the height, and FLOPs at FLUX's width. A decoder that was never trained costs the
same as a trained one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import configs_full
from bench import decode as memory
from bench import decoder_flops, quality_rows
from bench import quality_decoder_latents as latents
from bench.quality_rows import Cell, Row, Settings
from frieze.cluster.layout import Band, Canvas
from frieze.renderer.autoencoders.infgen_network import InfGenDecoder
from frieze.renderer.autoencoders.infgen_positions import Window
from frieze.renderer.checkpoints.shipped import SHIPPED
from frieze.renderer.planning.plan import plan
from frieze.renderer.spec.render_spec import RenderSpec

SIZES = (1024, 2048, 4096)
TRAINED, BLOCK = 256, 256
HEIGHTS, WIDTH = (512, 1024, 2048), 512
FLUX = Path(__file__).resolve().parents[2] / "configs" / "decoders" / "flux"
FLUX_SIDES, FLUX_TRAINED, FLUX_BLOCK = (2048, 4096, 8192), 1024, 512
STEPS = 28  # of FLUX


@dataclass(frozen=True)
class Way:
    """One way to a large picture: what a square costs, and how it is made, by its side."""

    name: str
    flops: Callable[[int], int]
    make: Callable[[int], object]


def ways(folder: Path) -> list[Way]:
    """InfGen in one step and in the decoder's own number, the exact decode, and `auto`."""
    network = InfGenDecoder.from_pretrained(folder).eval()
    small = torch.randn(1, network.config.latent_channels, TRAINED // 8, TRAINED // 8)
    picture = latents.decoded(small)
    config = dict(latents.vae().config)

    @torch.no_grad()
    def infgen(side: int, steps: int) -> None:
        latent = network.latent(small, picture)
        for top in range(0, side, BLOCK):
            window = Window((side, side), range(top, top + BLOCK), range(side))
            network.draw(latent, window, seed=0, num_steps=steps)

    def counted(side: int, steps: int) -> int:
        return decoder_flops.in_steps(folder, side, TRAINED, BLOCK, steps)

    own = network.config.num_steps
    return [
        *(
            Way(
                f"InfGen, {steps} step{'s' * (steps > 1)}, blocks of {BLOCK} rows",
                lambda side, steps=steps: counted(side, steps),
                lambda side, steps=steps: infgen(side, steps),
            )
            for steps in sorted({1, own})
        ),
        Way(
            "the exact decode of a latent of that size",
            lambda side: decoder_flops.exact(config, side),
            lambda side: latents.decoded(torch.randn(1, 16, side // 8, side // 8)),
        ),
        Way("`auto`, a whole render", _auto_flops, lambda side: quality_rows.rendered(_auto(side))),
    ]


def _auto(side: int) -> RenderSpec:
    row = Row("auto", "method", "auto", cascade=True)
    return quality_rows.spec_of(row, Cell(side, side), Settings(), 0)


def _auto_flops(side: int) -> int:
    config = dict(latents.vae().config)
    stages = plan(_auto(side)).cost.stages
    return sum(stage.flops for stage in stages) + decoder_flops.exact(config, side)


def timings(folder: Path, sizes: list[int], minutes: float) -> Iterator[str]:
    """The table's lines."""
    yield "| what | side | TFLOP | MFLOP a pixel | seconds | seconds a megapixel |"
    yield "|---|---|---|---|---|---|"
    for way in ways(folder):
        rate = None
        for side in sizes:
            flops, spent = way.flops(side), None
            if rate is None or flops / rate < 60 * minutes:
                if rate is None:
                    way.make(TRAINED)  # what is loaded and compiled at first is nobody's cost
                began = time.process_time()
                way.make(side)
                spent = time.process_time() - began
                rate = flops / spent
            pixels = side * side
            timed = ("counted only", "-")
            if spent is not None:
                timed = (f"{spent:.1f}", f"{spent / pixels * 1e6:.2f}")
            cells = (way.name, f"{side}", f"{flops / 1e12:.3f}", f"{flops / pixels / 1e6:.3f}")
            yield f"| {' | '.join((*cells, *timed))} |"


def draw_bands(
    folder: Path,
    size: tuple[int, int],
    num_bands: int,
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> None:
    """Draw rows x columns of pixels from a latent a quarter as large on bands that take turns.

    What waits is parked on disk. Each rank works inside what `around` returns.
    """
    from frieze.cluster.comm import line_up, solo, threads
    from frieze.cluster.layout import cut
    from frieze.renderer.autoencoders import infgen
    from frieze.renderer.checkpoints.checkpoint import describe, load_family

    facts = describe("demo")
    model = load_family(facts.family).load(facts, RenderSpec(local=True), torch.device("cpu"))
    network = infgen.load(decoder_flops.facts_of(folder), torch.float32, torch.device("cpu"))
    canvas = Canvas(1, size[0] // 32, size[1] // 32)
    bands, rows = cut(canvas.height, num_bands), cut(size[0], num_bands, align=64)
    x_BCTHW = torch.randn(1, facts.latent.channels, 1, canvas.height, canvas.width)
    comms = (solo(),) if num_bands == 1 else threads(num_bands, turns=True, park="disk")

    def rank(number: int) -> None:
        band: Band = bands[number]
        asked = infgen.Enlargement(size, rows[number], 64, seed=0)
        own = x_BCTHW[..., band.start : band.stop, :]
        with torch.no_grad(), comms[number].turn(), around():
            for _ in infgen.enlarged(network, model, own, bands, canvas, comms[number], asked):
                pass

    line_up(comms)
    ranks = [threading.Thread(target=rank, args=(number,)) for number in range(num_bands)]
    for thread in ranks:
        thread.start()
    for thread in ranks:
        thread.join()


def peak(folder: Path, height: int, num_bands: int) -> int:
    """Peak private bytes of drawing height x 512 pixels on so many bands."""
    import sympy  # noqa: F401  what torch's dispatch modes import at first use is not decoding's

    draw = partial(draw_bands, folder, (height, WIDTH), num_bands)
    return memory.peak_while(threading.Thread(target=draw))


def peak_apart(folder: Path, height: int, num_bands: int) -> int:
    """The same in a fresh process, whose threads free memory to one another."""
    command = [sys.executable, __file__, str(folder), "--peak", str(height), str(num_bands)]
    alike = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=alike)
    return int(run.stdout)


def memories(folder: Path) -> Iterator[str]:
    """The lines of peaks by height."""
    yield f"| height, {WIDTH} wide | 1 worker | a band for each 256 rows, parked on disk |"
    yield "|---|---|---|"
    for height in HEIGHTS:
        peaks = (peak_apart(folder, height, bands) for bands in (1, height // 256))
        yield f"| {height} | {' | '.join(f'{each / 2**20:.0f} MiB' for each in peaks)} |"


def flux(sides: tuple[int, ...]) -> Iterator[str]:
    """The lines of FLUX's width, in PFLOP, counted on tensors without memory."""
    files = json.loads((Path(configs_full.__file__).parent / "flux1.json").read_text())
    blocks = f"InfGen, one step, blocks of {FLUX_BLOCK}"
    yield f"| side, PFLOP | {blocks} | exact decode | a step of FLUX | {STEPS} and it |"
    yield "|---|---|---|---|---|"
    with tempfile.TemporaryDirectory() as folder:
        model = str(configs_full.build("flux1", Path(folder)))
        for side in sides:
            spec = RenderSpec(
                model=model,
                height=side,
                width=side,
                method="none",
                dtype="bfloat16",
                address="auto",
                device="cuda",
            )
            step = plan(spec).cost.stages[0].direct
            own = decoder_flops.by_block(FLUX, side, FLUX_TRAINED, FLUX_BLOCK)
            exact = decoder_flops.exact(files["vae/config.json"], side)
            cells = (f"{flops / 1e15:.3f}" for flops in (own, exact, step))
            yield f"| {side} | {' | '.join(cells)} | {(STEPS * step + exact) / own:.0f} times |"


def decoder_of(folder: Path | None, scratch: Path) -> Path:
    """The folder of a decoder: the one asked, the demo's own, or one that was never trained."""
    if folder is not None:
        return folder
    if (SHIPPED["demo"] / "infgen").is_dir():
        return SHIPPED["demo"] / "infgen"
    config = latents.vae().config
    names = ("latent_channels", "scaling_factor", "shift_factor")
    InfGenDecoder(**{name: config[name] for name in names}).save_pretrained(scratch)
    return scratch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("decoder", nargs="?", type=Path, help="default: the demo's own")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--minutes", type=float, default=3, help="the most for one timing")
    parser.add_argument("--parts", default="timings,memory,flux")
    parser.add_argument("--peak", nargs=2, type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = decoder_of(asked.decoder, Path(scratch))
        if asked.peak:
            print(peak(folder, *asked.peak))
            return
        print(f"{platform.machine()}, torch {torch.__version__}, one thread, float32")
        sizes = [int(size) for size in asked.sizes.split(",")]
        parts = {
            "timings": lambda: timings(folder, sizes, asked.minutes),
            "memory": lambda: memories(folder),
            "flux": lambda: flux(FLUX_SIDES),
        }
        for name in asked.parts.split(","):
            print()
            for line in parts[name]():
                print(line, flush=True)


if __name__ == "__main__":
    main()
