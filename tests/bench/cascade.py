"""How the demo preset's cascade was chosen: posters judged by the oracle, for several restarts.

For each pair of restart sigmas: the share of 1024 x 1024 posters with exactly one sun, of the asked
colour, with the asked landscape, and their detail beside that of scenes drawn at that size. The
plain model at full size, and the native picture enlarged, stand as floor and as comparison.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from frieze.renderer import RenderSpec, render
from frieze.renderer.demo import oracle, scenes
from frieze.renderer.store.store import Store

NATIVE_STEPS = 24
STEPS = (10, 8)


def prompts(number: int) -> list[str]:
    return [scenes.prompt_of(scenes.scene_from(seed)) for seed in range(number)]


def poster(folder: Path, prompt: str, seed: int, side: int, **fields: object) -> np.ndarray:
    """One render's pixels."""
    out = folder / "a.zarr"
    render(
        RenderSpec(
            prompt=prompt, seed=seed, height=side, width=side, local=True, out=str(out),
            overwrite=True, **fields,
        )
    )  # fmt: skip
    return np.concatenate([rows for _, rows in Store.open(out).in_order()])


def cascade(side: int, starts: tuple[float, ...], shift: float) -> list[dict[str, float]]:
    """Stages from 256 px to `side`, doubling, restarted at `starts`."""
    levels = len(starts)
    stages: list[dict[str, float]] = [{"scale": 0.5**levels, "steps": NATIVE_STEPS}]
    for level, (start, steps) in enumerate(zip(starts, STEPS, strict=False), 1):
        stages.append(
            {"scale": 0.5 ** (levels - level), "start": start, "steps": steps, "shift": shift}
        )
    return stages


def row(name: str, pictures: list[np.ndarray], asked: list[str]) -> None:
    found = oracle.score(pictures, asked)
    detail = np.mean([oracle.detail(picture) for picture in pictures])
    print(
        f"| {name} | {found.one_sun:.2f} | {found.colour:.2f} | {found.landscape:.2f} "
        f"| {detail:.2f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=2, help="posters for each row")
    parser.add_argument("--side", type=int, default=512, choices=(512, 1024))
    parser.add_argument("--starts", nargs="*", default=["0.25,0.15"], help="pairs of sigmas")
    parser.add_argument("--shift", type=float, default=1.5, help="timestep shift after a restart")
    parser.add_argument("--no-plain", action="store_true", help="leave the slow plain model out")
    parser.add_argument("--keep", type=Path, help="a folder for the pictures")
    options = parser.parse_args()
    asked, side = prompts(options.number), options.side
    print(
        f"demo model, {side} x {side}, {options.number} posters a row, torch {torch.__version__}\n"
    )
    print("| picture | one sun | colour | landscape | detail |\n|---|---|---|---|---|")
    scale = [scenes.draw(scenes.scene_from(seed), side, side) for seed in range(options.number)]
    row("scenes drawn at that size", scale, asked)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        native = [
            poster(folder, prompt, seed, 256, num_inference_steps=NATIVE_STEPS)
            for seed, prompt in enumerate(asked)
        ]
        enlarged = [
            np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))
            for picture in native
        ]
        row("native 256 px, enlarged", enlarged, asked)
        if not options.no_plain:
            plain = [
                poster(folder, prompt, seed, side, num_inference_steps=NATIVE_STEPS)
                for seed, prompt in enumerate(asked)
            ]
            row("plain model, one stage", plain, asked)
        for text in options.starts:
            starts = tuple(float(start) for start in text.split(","))[: side // 512]
            pictures = [
                poster(
                    folder,
                    prompt,
                    seed,
                    side,
                    method="pi",
                    stages=cascade(side, starts, options.shift),
                )
                for seed, prompt in enumerate(asked)
            ]
            row(f"cascade restarted at {text}", pictures, asked)
            for number, picture in enumerate(pictures if options.keep else []):
                Image.fromarray(picture).save(options.keep / f"{side}-{text}-{number}.png")


if __name__ == "__main__":
    main()
