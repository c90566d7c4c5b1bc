"""What SDXL's plans ask of devices of 80 GB, method by method: no weights, no devices.

`python tests/bench/plans.py > tests/bench/results/plans.md`, minutes on one core.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import configs_full
from frieze.renderer.planning.estimate import fits
from frieze.renderer.planning.plan import plan
from frieze.renderer.spec.render_spec import RenderSpec
from frieze.renderer.spec.units import GIB

DEVICE = 80 * 10**9
METHODS = ("none", "hidiffusion", "cinescale")


def row(folder: str, size: int, method: str, workers: int) -> str:
    """One line of the table."""
    spec = RenderSpec(
        model=folder,
        dtype="float16",
        address="auto",
        device="cuda",
        height=size,
        width=size,
        method=method,
        workers=workers,
    )
    made = plan(spec)
    needed = made.estimate
    parts = (needed.weights, needed.encode, needed.denoise, needed.in_flight, needed.decode)
    cells = " | ".join(f"{part / GIB:.2f}" for part in parts)
    reason = fits(needed, DEVICE)
    verdict = "accepted" if reason is None else f"refused: {reason}"
    whole = f"{needed.bytes_per_device / GIB:.2f}"
    work = f"{made.cost.relative:.2f}"
    return f"| {size} | {method} | {workers} | {work} | {cells} | {whole} | {verdict} |"


def main() -> None:
    """Prints the table."""
    print("# SDXL on devices of 80 GB: peaks by part, in GiB, as plans count them\n")
    print("Written by `tests/bench/plans.py`; half precision, two prompts a step.\n")
    print("Work is the FLOPs of denoising beside drawing the size directly.\n")
    heads = ("size", "method", "workers", "work", "weights", "encode", "denoise", "of it in flight")
    print(f"| {' | '.join((*heads, 'decode', 'peak', 'plan'))} |")
    print(f"|{'---|' * (len(heads) + 3)}")
    with tempfile.TemporaryDirectory() as folder:
        model = str(configs_full.build("sdxl", Path(folder)))
        for size in (4096, 8192):
            for method in METHODS:
                for workers in (1, 4, 8):
                    print(row(model, size, method, workers), flush=True)


if __name__ == "__main__":
    main()
