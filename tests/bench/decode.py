"""Peak memory of decoding against canvas height, each case in a process of its own.

One band grows with the canvas. Virtual bands of 256 rows, computing in turns with the waiting ones
parked on disk, stay flat. Memory is private (anonymous) resident memory above the idle process.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

import torch

HEIGHTS = (512, 1024, 2048)
WIDTH = 512
BAND_ROWS = 256


def private_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no RssAnon in /proc/self/status")


def peak_while(work: threading.Thread) -> int:
    """The highest private memory until `work` ends, above what it was before."""
    before = peak = private_bytes()
    work.start()
    while work.is_alive():
        peak = max(peak, private_bytes())
        time.sleep(0.002)
    return peak - before


def decode_once(height: int, num_bands: int) -> tuple[int, float]:
    """(peak private bytes, seconds) of decoding noise of height x 512 pixels."""
    from frieze.cluster.comm import line_up, solo, threads
    from frieze.cluster.layout import Canvas, cut
    from frieze.renderer.autoencoders.decoding import decode
    from frieze.renderer.checkpoints.checkpoint import describe, load_family
    from frieze.renderer.spec.render_spec import RenderSpec

    facts = describe("demo")
    model = load_family(facts.family).load(facts, RenderSpec(local=True), torch.device("cpu"))
    canvas = Canvas(1, height // 8, WIDTH // 8)
    bands = cut(canvas.height, num_bands)
    generator = torch.Generator().manual_seed(0)
    shape = (1, facts.latent.channels, canvas.height, canvas.width)
    latents = torch.randn(shape, generator=generator)
    comms = (solo(),) if num_bands == 1 else threads(num_bands, turns=True, park="disk")

    def rank(number: int) -> None:
        band = bands[number]
        rows = latents[:, :, band.start : band.stop]
        with torch.no_grad(), comms[number].turn():
            for _ in decode(model, rows, bands, canvas, comms[number], rows_per_block=64):
                pass

    def everyone() -> None:
        line_up(comms)
        ranks = [threading.Thread(target=rank, args=(n,)) for n in range(num_bands)]
        for thread in ranks:
            thread.start()
        for thread in ranks:
            thread.join()

    import sympy  # noqa: F401  what torch's dispatch modes import at first use is not decoding's

    began = time.perf_counter()
    peak = peak_while(threading.Thread(target=everyone))
    return peak, time.perf_counter() - began


def measured(height: int, num_bands: int) -> tuple[int, float]:
    """`decode_once` in a fresh process."""
    command = [sys.executable, __file__, str(height), str(num_bands)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return int(out[0]), float(out[1])


def main() -> None:
    print(f"{platform.machine()}, torch {torch.__version__}, demo decoder, float32, {WIDTH} wide\n")
    print("| height | 1 band | virtual bands of 256 rows, parked on disk | time ratio |")
    print("|---|---|---|---|")
    for height in HEIGHTS:
        whole, whole_seconds = measured(height, 1)
        parked, parked_seconds = measured(height, height // BAND_ROWS)
        ratio = parked_seconds / whole_seconds
        print(f"| {height} | {whole / 2**20:.0f} MiB | {parked / 2**20:.0f} MiB | {ratio:.2f} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) == 3:
        print(*decode_once(int(sys.argv[1]), int(sys.argv[2])))
    else:
        main()
