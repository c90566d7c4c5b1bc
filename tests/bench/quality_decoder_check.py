"""What decoders draw of a few latents, at a glance: a minute or two, to judge a training by.

`python tests/bench/quality_decoder_check.py FOLDER ... --steps 1,4 --pictures 4`: rows of scenes
and of bicubic enlargements first, then one for each folder and number of steps; `--sheet` names a
picture of what was drawn. Columns are explained in `quality_decoder_metrics.py` and the oracle.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench import quality_decoder_latents as latents
from bench import quality_decoder_metrics as metrics
from bench.quality_decoder_latents import SOURCES, Small, Source
from bench.quality_decoder_rows import Enlarge, bicubic, infgen
from bench.quality_rows import NATIVE, Pixels, Settings
from frieze.renderer.demo import oracle, scenes


def measured(
    picture: Pixels, half: Pixels, low: Pixels, prompt: str, truth: Pixels | None
) -> dict[str, float]:
    """All columns of one picture; NaN where one has no meaning."""
    verdict = oracle.judge(picture)
    return {
        "detail": verdict.detail,
        "stray firs": float(oracle.stray_firs(picture)),
        "radius %": 100 * metrics.radius_variation(picture),
        "flecks ppm": metrics.flecks(picture),
        "PSNR": metrics.psnr(picture, truth) if truth is not None else float("nan"),
        "half off": metrics.away(picture, half),
        "drift": metrics.drift(picture, low),
        "grid": metrics.grid(picture),
        "one sun": float(verdict.suns == 1),
        "agrees": float(oracle.agrees(verdict, prompt)),
    }


def judged(
    enlarge: Enlarge | None, smalls: Mapping[tuple[Source, int], Small], side: int
) -> tuple[dict[Source, dict[str, float]], list[Pixels]]:
    """Means over the pictures of each source, and the pictures; None stands for the scenes."""
    found: dict[Source, list[dict[str, float]]] = {}
    pictures = []
    for (source, seed), small in smalls.items():
        scene, is_real = scenes.scene_from(seed), enlarge is None
        draw = partial(scenes.draw, scene)
        began = time.process_time()
        picture = draw(side, side) if enlarge is None else enlarge(small, side, seed)
        spent = time.process_time() - began
        half = draw(side // 2, side // 2) if enlarge is None else enlarge(small, side // 2, seed)
        low = draw(NATIVE, NATIVE) if is_real else small.pixels
        truth = draw(side, side) if source == "encoded" and not is_real else None
        row = measured(picture, half, low, scenes.prompt_of(scene), truth)
        found.setdefault(source, []).append({**row, "s/MP": spent / (side / 1000) ** 2})
        pictures.append(picture)
    return {source: _mean(rows) for source, rows in found.items()}, pictures


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def sheet(rows: Sequence[Sequence[Pixels]], crop: int = 384) -> Image.Image:
    """Each row's pictures side by side, as they are around the middle of the tree line."""
    side, number = len(rows[0][0]), len(rows[0])
    whole, top = crop // 2, int(0.72 * side) - crop // 2
    canvas = Image.new("RGB", (number * (crop + whole), len(rows) * crop))
    for line, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            left = column * (crop + whole)
            part = picture[top : top + crop, (side - crop) // 2 : (side + crop) // 2]
            canvas.paste(Image.fromarray(part), (left, line * crop))
            thumb = Image.fromarray(picture).resize((whole, whole), Image.Resampling.LANCZOS)
            canvas.paste(thumb, (left + crop, line * crop))
    return canvas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, help="of decoders")
    parser.add_argument("--steps", default="", help="with commas; default: each decoder's own")
    parser.add_argument("--pictures", type=int, default=3, help="of each source")
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--sources", default=",".join(SOURCES))
    parser.add_argument("--work", type=Path, default=Path("/tmp/frieze-quality-decoder"))
    parser.add_argument("--sheet", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    smalls = {
        (source, seed): latents.small(asked.work, source, seed, Settings())
        for source in SOURCES
        if source in asked.sources.split(",")
        for seed in range(asked.pictures)
    }
    steps = [int(number) for number in asked.steps.split(",") if number] or [None]
    rows: dict[str, Enlarge | None] = {"scenes": None, "bicubic": bicubic}
    for folder in asked.folders:
        for number in steps:
            rows[f"{folder.name} {number or 'own'}"] = infgen(folder, number)
    shown, width = [], max(map(len, rows))
    for index, (name, enlarge) in enumerate(rows.items()):
        means, pictures = judged(enlarge, smalls, asked.side)
        shown.append(pictures)
        for source, columns in means.items():
            if not index and source == SOURCES[0]:
                print(" ".join([" " * width, " " * 7, *(f"{c:>10}" for c in columns)]))
            cells = " ".join(f"{value:10.3f}" for value in columns.values())
            print(f"{name:<{width}} {source:<7} {cells}", flush=True)
    if asked.sheet:
        sheet(shown).save(asked.sheet)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
