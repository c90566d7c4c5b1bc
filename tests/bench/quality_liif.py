"""A local implicit image function beside InfGen: trained on the same crops for the same minutes.

`python tests/bench/quality_liif.py --minutes 13 --out liif.safetensors`, then
`quality_decoder.py --liif liif.safetensors`. After Chen, Liu and Wang (LIIF, CVPR 2021, arXiv
2012.09161, sec. 3): a network asks the features around a place of the picture, unfolded over 3 x 3
of them, with its distance from each of the four nearest and the size of a pixel, and the four
answers are weighed by area. Features are of the exact decode and its latents, and what is asked is
the difference from the enlarged decode, from which InfGen starts too. The loss is L1.
Shape suffixes: B batch, C channels, H rows, W columns (h, w: of a window).
"""

from __future__ import annotations

import argparse
import copy
import functools
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench import quality_decoder_latents as latents
from bench.quality_decoder_latents import Small
from bench.quality_rows import NATIVE, Pixels
from frieze.kernels import bicubic
from frieze.renderer.autoencoders.infgen_positions import Window, centres
from frieze.renderer.training.infgen_training import FlowPlan, Pictures, drawn_crop
from frieze.renderer.training.loop import cosine, follow, warmed_up
from frieze.renderer.training.pictures.sources import FIRST_SEED, SceneSource

ROWS = 64  # that are asked at once
AREA = 1e-9  # added to areas, of which none may be zero


class LIIF(nn.Module):
    """Features of the decode and its latents, and the network that is asked about places."""

    def __init__(
        self, latent_channels: int = 16, channels: int = 32, depth: int = 4, hidden: int = 96
    ) -> None:
        super().__init__()
        self.features_in = nn.Conv2d(3 + latent_channels, channels, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(channels, channels, 3, padding=1),
            )
            for _ in range(depth)
        )
        # The first layer, in two parts: of features it is the same wherever they are asked for.
        self.features_out = nn.Conv2d(channels, hidden, 3, padding=1)
        self.place_in = nn.Conv2d(4, hidden, 1)
        layers = [layer for _ in range(2) for layer in (nn.ReLU(), nn.Conv2d(hidden, hidden, 1))]
        last = nn.Conv2d(hidden, 3, 1)
        nn.init.zeros_(last.weight)
        assert last.bias is not None
        nn.init.zeros_(last.bias)
        self.asked = nn.Sequential(*layers, nn.ReLU(), last)

    def features(self, z_BCHW: Tensor, picture_B3HW: Tensor) -> Tensor:
        """What the first layer makes of 3 x 3 of them, [B, C, H, W], as large as the decode."""
        z = F.interpolate(z_BCHW, picture_B3HW.shape[-2:], mode="bilinear")
        x_BCHW = self.features_in(torch.cat([picture_B3HW, z], dim=1))
        for block in self.blocks:
            x_BCHW = x_BCHW + block(x_BCHW)
        out: Tensor = self.features_out(x_BCHW)
        return out

    def forward(self, features_BCHW: Tensor, picture_B3HW: Tensor, window: Window) -> Tensor:
        """Pixels [B, 3, h, w] of a window of an enlarged picture."""
        size = (features_BCHW.shape[-2], features_BCHW.shape[-1])
        ways = [
            _nearest(part, most, cells, way)
            for part, most, cells in zip(
                (window.rows, window.columns), window.size, size, strict=True
            )
            for way in (-0.5, 0.5)
        ]
        answers, areas = [], []
        for (row_h, far_h), (column_w, far_w) in itertools.product(ways[:2], ways[2:]):
            near_BChw = features_BCHW[:, :, row_h][:, :, :, column_w]
            own = [far_h[:, None].expand(-1, len(far_w)), far_w.expand(len(far_h), -1)]
            own += [torch.full_like(own[0], a / b) for a, b in zip(size, window.size, strict=True)]
            told = torch.stack(own).float().expand(len(near_BChw), -1, -1, -1)
            answers.append(self.asked(near_BChw + self.place_in(told)))
            areas.append((own[0] * own[1]).abs().float() + AREA)
        total = torch.stack(areas).sum(dim=0)
        # Each answer counts by the area across the place from it.
        found = sum(
            (answer * (area / total) for answer, area in zip(answers, areas[::-1], strict=True)),
            start=torch.zeros(()),
        )
        place = (window.size, window.rows, window.columns)
        return bicubic.enlarge(picture_B3HW, *place) + found


def _nearest(part: range, most: int, cells: int, way: float) -> tuple[Tensor, Tensor]:
    """Of places of an axis the cell on one side, and how far they are from its middle, in cells."""
    at = centres(part, most) * cells - 0.5
    number = (at + way).round().clamp(0, cells - 1)
    return number.long(), at - number


@torch.enable_grad()
def train(
    network: LIIF,
    pictures: Pictures,
    plan: FlowPlan,
    seconds: float = float("inf"),
    tell: Callable[[int, float], None] | None = None,
) -> LIIF:
    """The average of a network that learned from a plan's crops, for its steps or so long."""
    average = copy.deepcopy(network).eval().requires_grad_(False)
    optimiser = torch.optim.AdamW(network.parameters(), plan.rate, betas=(0.9, 0.99))
    began = time.monotonic()
    for step in range(plan.steps):
        done = max(step / plan.steps, (time.monotonic() - began) / seconds)
        if done >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = plan.rate * warmed_up(step, plan.warm_up) * cosine(done)
        optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for item in range(plan.groups):
            loss = _loss(network, pictures, plan, step, item)
            loss.backward()
            total += float(loss.detach())
        optimiser.step()
        follow(average, network, min(plan.ema, (step + 1) / (step + 11)))
        if tell is not None:
            tell(step, total)
    return average


def _loss(network: LIIF, pictures: Pictures, plan: FlowPlan, step: int, item: int) -> Tensor:
    """Mean absolute error over a group's share of the batch."""
    crop = drawn_crop(plan, pictures, step, item)
    z_BCHW, picture_B3HW = crop.latents(pictures)
    made = network(network.features(z_BCHW, picture_B3HW), picture_B3HW, crop.tokens.times(8))
    return (made - crop.target(pictures)).abs().mean() * plan.together(item) / plan.batch


class LearnedScenes(SceneSource):
    """Scenes that no benchmark shows, with their latents at hand."""

    @functools.lru_cache(maxsize=2048)  # noqa: B019  one object for one training
    def latents(self, number: int) -> tuple[Tensor, Tensor]:
        """Latents [1, C, H, W], and their exact decode [1, 3, H, W]."""
        z_1CHW = latents.encoded(FIRST_SEED + number)
        return z_1CHW, latents.decoded(z_1CHW)


@functools.lru_cache(maxsize=2)
def load(file: str) -> LIIF:
    """A trained one."""
    network = LIIF()
    network.load_state_dict(load_file(file))
    return network.eval().requires_grad_(False)


@torch.no_grad()
def enlarged(file: str, small: Small, side: int) -> Pixels:
    """A square picture of latents and their decode."""
    network = load(file)
    features = network.features(small.z_1CHW, small.picture_13HW)
    parts = []
    for top in range(0, side, ROWS):
        window = Window((side, side), range(top, min(side, top + ROWS)), range(side))
        parts.append(network(features, small.picture_13HW, window))
    return latents.to_pixels(torch.cat(parts, dim=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=13)
    parser.add_argument("--pictures", type=int, default=480)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pictures = LearnedScenes(asked.pictures, NATIVE)
    for number in range(asked.pictures):
        pictures.latents(number)
    plan = FlowPlan(steps=10**9, crop=asked.crop)

    def tell(step: int, loss: float) -> None:
        if step % 50 == 0:
            print(f"step {step}, L1 {loss:.4f}", flush=True)

    network = train(LIIF(), pictures, plan, 60 * asked.minutes, tell)
    save_file(network.state_dict(), asked.out)
    print(asked.out)


if __name__ == "__main__":
    main()
