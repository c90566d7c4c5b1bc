"""What each part of the InfGen decoder is worth: variants of it trained with equal steps.

Every variant starts from the same seed and learns from the same crops of the demo's scenes; then
all are judged by the flow's loss on scenes that none has learned from, and by what they draw of
those scenes' latents. `python tests/bench/quality_decoder_ablation.py --steps 1200`. Variants that
are trained stay in the work folder, so that a stopped run goes on where it was. Writes a table to
tests/bench/results. One run each, of one seed: read small differences as none.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench import quality_decoder_latents as latents
from bench.quality_decoder_check import judged
from bench.quality_decoder_rows import bicubic, infgen
from bench.quality_report import machine
from bench.quality_rows import NATIVE, Settings
from frieze.renderer import RenderSpec
from frieze.renderer.autoencoders import autoencoder
from frieze.renderer.autoencoders.infgen_network import InfGenDecoder
from frieze.renderer.autoencoders.infgen_positions import Window
from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.checkpoints.shipped import SHIPPED
from frieze.renderer.training.infgen_training import FlowPlan, FlowTraining, drawn_crop, flow_loss
from frieze.renderer.training.pictures.latent_cache import LatentCache
from frieze.renderer.training.pictures.sources import CachedPictures, SourceWords
from frieze.renderer.training.timesteps import Uniform

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("detail", "stray firs", "flecks ppm", "PSNR", "half off", "drift", "grid", "s/MP")


@dataclass(frozen=True)
class Variant:
    """What is other than in the shipped decoder's shape, and in how it is trained."""

    name: str
    shape: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)


VARIANTS = (
    Variant("as shipped"),
    Variant("no contrast-normalised input", {"contrast": False}),
    Variant("no mask tokens: a plain U-Net", {"depth": 0}),
    Variant("global attention", {"mode": "global"}),
    Variant("no position (INPE constant)", {"direction_scale": 0.0}),
    Variant("no palette", {"palette": 0}),
    Variant("crops anywhere", plan={"sought": 0.0}),
    Variant("all crops where the decode lacks", plan={"sought": 1.0}),
)


def scene_pictures(work: Path, number: int) -> CachedPictures:
    """So many scenes with their latents, which are made where they are not there."""
    facts, cpu = describe("demo"), torch.device("cpu")
    source, cache = SourceWords(scenes=number, side=NATIVE).opened(), LatentCache(work / "latents")
    model = autoencoder.load(facts, RenderSpec(model="demo"), cpu)
    for index in range(number):
        if not cache.has(source.key(index)):
            whole = Window.whole(source.decoded_size(index))
            cache.fill([source.key(index)], source.crop(index, whole), model)
    return CachedPictures(source, cache, cpu)


class Part:
    """Pictures from one number on to another: those to learn from, or those to judge by."""

    def __init__(self, pictures: CachedPictures, numbers: range) -> None:
        self.pictures, self.numbers = pictures, numbers

    def decoded_size(self, number: int) -> tuple[int, int]:
        return self.pictures.decoded_size(self.numbers[number])

    def latents(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.pictures.latents(self.numbers[number])

    def crop(self, number: int, window: Window) -> torch.Tensor:
        return self.pictures.crop(self.numbers[number], window)

    def __len__(self) -> int:
        return len(self.numbers)


def trained(variant: Variant, pictures: Part, folder: Path, steps: int) -> float:
    """Train one and save its average; the processor seconds it took."""
    shape = {**shape_of_shipped(), **variant.shape, "num_steps": 4}
    torch.manual_seed(0)
    training = FlowTraining(InfGenDecoder(**shape), FlowPlan(steps, autocast=True, **variant.plan))
    began = time.process_time()
    for step in range(steps):
        loss = training.step(pictures)
        if step % 200 == 199:
            print(f"{variant.name}: step {step + 1}, loss {loss:.3f}", flush=True)
    spent = time.process_time() - began
    training.average.save_pretrained(folder)
    (folder / "seconds").write_text(str(spent))
    return spent


def shape_of_shipped() -> dict[str, Any]:
    """The arguments of the demo's own decoder."""
    config = InfGenDecoder.load_config(SHIPPED["demo"] / "infgen")
    return {name: value for name, value in config.items() if not name.startswith("_")}


@torch.no_grad()
def losses(network: InfGenDecoder, pictures: Part, number: int) -> tuple[float, float]:
    """Mean flow losses of crops anywhere, at levels of noise anywhere: below and above .5."""
    plan = FlowPlan(1, sought=0.0, timesteps=Uniform(), seed=7)
    found: dict[bool, list[float]] = {False: [], True: []}
    for step in range(number):
        crop = drawn_crop(plan, pictures, step, 0)
        for level in (0.2, 0.8):
            at = replace(crop, times=(level,) * len(crop.pictures))
            latent = network.latent(*at.latents(pictures), at.tokens)
            loss = flow_loss(network, latent, at, at.target(pictures), plan)
            found[level > 0.5].append(float(loss))
    return float(np.mean(found[False])), float(np.mean(found[True]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--scenes", type=int, default=300, help="to learn from")
    parser.add_argument("--unseen", type=int, default=40, help="to judge the loss by")
    parser.add_argument("--pictures", type=int, default=4, help="of each kind of latents, drawn")
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--work", type=Path, default=Path("/tmp/frieze-quality-decoder"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--variants", default="", help="names with semicolons; default: all")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    names = [name.strip() for name in asked.variants.split(";") if name.strip()]
    chosen = [variant for variant in VARIANTS if not names or variant.name in names]
    work = asked.work / f"ablation-{asked.steps}"
    every = scene_pictures(work, asked.scenes + asked.unseen)
    seen = Part(every, range(asked.scenes))
    unseen = Part(every, range(asked.scenes, len(every)))
    smalls: dict[tuple[latents.Source, int], latents.Small] = {
        ("encoded", seed): latents.small(asked.work, "encoded", seed, Settings())
        for seed in range(asked.pictures)
    }
    lines = [
        "# What the parts of the InfGen decoder are worth\n",
        f"`{' '.join(['python', 'tests/bench/quality_decoder_ablation.py', *sys.argv[1:]])}`\n",
        f"{machine()}; torch {torch.__version__}. {asked.steps} steps of the flow each, batch 8, "
        f"crops of 64 pixels, {asked.scenes} scenes, one seed; drawn in 4 steps at {asked.side} "
        f"pixels of {asked.pictures} latents of scenes. *loss*: of {asked.unseen} unseen scenes at "
        "noise levels .2 and .8. Other columns as in quality_decoder.md.\n",
        f"| variant | parameters | loss at .2 | at .8 | {' | '.join(COLUMNS)} | training, s |",
        "|---|---|---|---|" + "---|" * (len(COLUMNS) + 1),
    ]
    asked.out.mkdir(parents=True, exist_ok=True)
    for name, enlarge in (("scenes", None), ("bicubic", bicubic)):
        rows, _ = judged(enlarge, smalls, asked.side)
        lines.append(_line(name, ("-", "-", "-"), rows["encoded"], "-"))
    for variant in chosen:
        folder = work / "".join(c if c.isalnum() else "-" for c in variant.name)
        if not (folder / "seconds").exists():
            trained(variant, seen, folder, asked.steps)
        network = InfGenDecoder.from_pretrained(folder).eval()
        found = losses(network, unseen, asked.unseen)
        size = f"{sum(p.numel() for p in network.parameters()):,}"
        rows, _ = judged(infgen(folder, 4), smalls, asked.side)
        seconds = f"{float((folder / 'seconds').read_text()):.0f}"
        told = (size, *(f"{loss:.4f}" for loss in found))
        lines.append(_line(variant.name, told, rows["encoded"], seconds))
        print(lines[-1], flush=True)
        (asked.out / "quality_decoder_ablation.md").write_text("\n".join(lines) + "\n")


def _line(name: str, told: tuple[str, ...], columns: Mapping[str, float], seconds: str) -> str:
    cells = (f"{columns[c]:.2f}" if np.isfinite(columns[c]) else "-" for c in COLUMNS)
    return f"| {' | '.join((name, *told, *cells, seconds))} |"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
