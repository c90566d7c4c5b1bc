"""A decoder on its own picture: 256 to 1024 to 4096 pixels, one sun kept, and no seam at blocks.

Each picture is drawn by the demo model, enlarged by the decoder, and what came out is enlarged as
`frieze upscale` does it: encoded exactly and drawn block by block on two workers. Seams are looked
for at the edges of blocks and where the workers' rows meet, and beside them in real scenes, whose
own ratios vary as the last lines say. Prints a table; pictures stay in the work folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench import quality_decoder_latents as latents
from bench import quality_decoder_metrics as metrics
from bench import quality_rows
from bench.quality_decoder_rows import infgen
from bench.quality_rows import Pixels, Settings
from frieze.renderer import RenderSpec
from frieze.renderer.checkpoints.shipped import SHIPPED
from frieze.renderer.demo import oracle, scenes

WORKERS = 2


def enlarged(file: Path, decoder: Path, side: int, block: int, seed: int) -> Pixels:
    """A picture of a file, as `frieze upscale` makes it larger."""
    spec = RenderSpec(
        upscale=str(file),
        decoder=str(decoder),
        height=side,
        width=side,
        chunk=block,
        workers=WORKERS,
        seed=seed,
        local=True,
    )
    return quality_rows.rendered(spec)


def seams(picture: Pixels, block: int) -> dict[str, tuple[float, float]]:
    """Steepness across and beside rows of blocks, columns of blocks, and where workers meet."""
    side = len(picture)
    edges = list(range(block, side, block))
    return {
        "rows": metrics.seam(picture, edges, 0),
        "columns": metrics.seam(picture, edges, 1),
        "workers": metrics.seam(picture, [side // WORKERS // block * block], 0),
    }


def kept(file: Path, draw: Callable[[], Pixels]) -> Pixels:
    """The picture of a file, drawn first where it is not there."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw()).save(file.with_suffix(".new"), format="PNG")
        file.with_suffix(".new").replace(file)
    return np.array(Image.open(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decoder", type=Path, default=SHIPPED["demo"] / "infgen")
    parser.add_argument("--steps", type=int, help="of the first enlargement")
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--scenes", type=int, default=16, help="that seams are compared with")
    parser.add_argument("--sides", default="1024,4096")
    parser.add_argument("--block", type=int, default=512)
    parser.add_argument("--work", type=Path, default=Path("/tmp/frieze-quality-decoder"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    first, last = map(int, asked.sides.split(","))
    folder = asked.work / f"twice-{asked.decoder.resolve().name}-{asked.sides}"
    found: list[dict[str, tuple[float, float]]] = []
    print(f"| seed | suns at 256, {first}, {last} | seams: rows, columns, workers |")
    print("|---|---|---|")
    for seed in range(asked.pictures):
        small = latents.small(asked.work, "drawn", seed, Settings())
        draw = infgen(asked.decoder, asked.steps)
        middle_file = folder / f"{seed:04}-{first}.png"
        middle = kept(middle_file, partial(draw, small, first, seed))
        large = kept(
            folder / f"{seed:04}-{last}.png",
            partial(enlarged, middle_file, asked.decoder, last, asked.block, seed),
        )
        suns = [oracle.judge(picture).suns for picture in (small.pixels, middle, large)]
        found.append(seams(large, asked.block))
        ratios = ", ".join(f"{across / beside:.3f}" for across, beside in found[-1].values())
        print(f"| {seed} | {', '.join(map(str, suns))} | {ratios} |", flush=True)
    real = [
        seams(scenes.draw(scenes.scene_from(seed), last, last), asked.block)
        for seed in range(asked.scenes)
    ]
    for name in real[0]:
        own, others = (np.array([each[name] for each in group]) for group in (found, real))
        ratio, truth = (each[:, 0].sum() / each[:, 1].sum() for each in (own, others))
        spread = np.quantile(others[:, 0] / others[:, 1], (0.025, 0.975))
        print(
            f"{name}: {ratio:.3f} over all; scenes {truth:.3f}, each between "
            f"{spread[0]:.3f} and {spread[1]:.3f}"
        )


if __name__ == "__main__":
    main()
