"""Memory of a step in tiles: as much for 900 tiles of a canvas as for 121.

Two workers, threads of this process, draw a few steps; what each holds at most, weights excepted,
is counted tensor by tensor, and so is what the plan says. `python -m bench.tiles_memory` in tests/.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import checkpoints
from frieze.cluster.comm import Comm, run_threads
from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.models.strategies import tiling
from frieze.renderer.spec.render_spec import RenderSpec
from support.planned_memory import Measured, conditioning, estimated, planned

WORKERS, STEPS, CLOSE = 2, 2, 0.1
APART = 16  # workers that take turns, of a canvas whose decode is too much for two
TRAINED = 64  # pixels, of the small checkpoint that is drawn with unless told otherwise


def spec(model: str, side: int, overlap: int, workers: int = WORKERS) -> RenderSpec:
    """A square picture whose tiles share so many pixels; more workers than two take turns."""
    return RenderSpec(
        model=model,
        device="cpu",
        height=side,
        width=side,
        num_inference_steps=STEPS,
        method="none",
        workers=workers,
        local=True,
        park="disk" if workers > WORKERS else None,
        strategy="tiles",
        strategy_options={"overlap": overlap, "shift": False},
    )


def measured(model: str, side: int, overlap: int, workers: int = WORKERS) -> tuple[int, int, int]:
    """(tiles of a step, bytes that the plan says, bytes that the largest worker held)."""
    made = planned(spec(model, side, overlap, workers))
    laid = tiling(made.spec, made.facts, made.stages[0].canvas)
    assert laid is not None
    tensors = conditioning(made)

    def peak(comm: Comm) -> int:
        worker = Measured(made, comm, tensors)
        return worker.peak(lambda: (worker.begin(0, None), worker.step(0), worker.step(1)))

    turns = {"turns": True, "park": "disk"} if workers > WORKERS else {}
    held = max(run_threads(peak, workers, timeout=3600.0, **turns))
    return laid.num_tiles, estimated(made).denoise, held


def small(folder: Path) -> str:
    """A FLUX of a few layers with random weights."""
    found = checkpoints.build("flux", folder / "flux")
    (found / "frieze.json").write_text(json.dumps({"training_size": TRAINED}))
    return str(found)


def main() -> int:
    """Print both, and fail where they differ by more than a tenth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="'demo', or a folder; default: a small random FLUX")
    parser.add_argument("--side", type=int, help="one canvas of so many pixels alone: 16384")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = asked.model or small(Path(folder))
        trained = describe(model).training_size
        if asked.side:
            began = time.monotonic()
            tiles, told, held = measured(model, asked.side, trained // 4, APART)
            print(
                f"{asked.side} x {asked.side}, {tiles} tiles, {STEPS} steps on {APART} workers: "
                f"{held / 2**20:.2f} MiB held by the largest, {told / 2**20:.2f} MiB planned; "
                f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB resident at "
                f"most, weights and all; {time.monotonic() - began:.0f} s"
            )
            return int(abs(held / told - 1) > CLOSE)
        side = 8 * trained + trained // 4  # 11 tiles a side with a quarter shared, 30 with more
        rows = [measured(model, side, trained // 4), measured(model, side, trained * 3 // 4)]
    for tiles, told, held in rows:
        print(f"{tiles:>5} tiles: {held / 2**20:.2f} MiB held, {told / 2**20:.2f} MiB planned")
    (_, _, few), (_, _, many) = rows
    print(f"{many / few:.3f} of the memory")
    return int(abs(many / few - 1) > CLOSE)


if __name__ == "__main__":
    sys.exit(main())
