"""Features of demo pictures: a small network that learns what procedural scenes show.

Trained on scenes drawn in this repository to tell sun, mountains and hour, the size a window was
drawn at and how far it was enlarged; its pooled activations are the features of the quality
benchmark's kernel distances. `python tests/bench/features.py` trains it anew, deterministically,
in a few minutes on one core.
Shape legend: N pictures, C channels, H rows, W columns, P pooled activations,
F features.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from frieze.renderer.demo import scenes

WEIGHTS = Path(__file__).with_suffix(".safetensors")
SIDE, BATCH, STEPS, RATE = 256, 32, 300, 3e-3
CHANNELS = (16, 32, 48, 64, 64)
# Rows that the last layer is pooled into: sky above mountains is told from mountains above sky.
ROWS = 3
NUM_POOLED = sum(CHANNELS[:4]) + ROWS * CHANNELS[4]
NUM_FEATURES = 64
LUMA = torch.tensor((0.299, 0.587, 0.114))[:, None, None]
DRAWN = (256, 512, 1024)
FIRST_SEED = 10_000_000  # of the training scenes; nothing else draws so large a seed
NAMED = {"sun": list(scenes.SUNS), "mountains": list(scenes.MOUNTAINS), "time": list(scenes.SKIES)}


class Network(nn.Module):
    """Five strided convolutions of colour and edges; features are their activations, whitened.

    Whitened over real scenes, all directions weigh alike: blur, which shifts few activations, is
    not lost among colours, which shift many.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (4, *CHANNELS)
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1)
            for before, after in itertools.pairwise(widths)
        )
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        self.norm = nn.BatchNorm1d(NUM_POOLED, affine=False)
        self.register_buffer("mean_P", torch.zeros(NUM_POOLED))
        self.register_buffer("whitening_PF", torch.zeros(NUM_POOLED, NUM_FEATURES))
        sizes = {name: len(words) for name, words in NAMED.items()}
        self.heads = nn.ModuleDict(
            {
                name: nn.Linear(NUM_POOLED, size)
                for name, size in {**sizes, "drawn": len(DRAWN), "enlarged": 1}.items()
            }
        )

    def pooled(self, x_NCHW: Tensor) -> Tensor:
        """Activations [N, P] of pictures in [-1, 1]: means over the picture.

        Of the last layer over each third of the rows.
        """
        luma_NCHW = (x_NCHW * LUMA).sum(1, keepdim=True)
        edges_NCHW = 4 * (luma_NCHW - F.avg_pool2d(F.pad(luma_NCHW, (1,) * 4, "reflect"), 3, 1))
        x_NCHW = torch.cat((x_NCHW, edges_NCHW), 1)
        found = []
        for layer in self.layers:
            x_NCHW = F.relu(layer(x_NCHW))
            found.append(x_NCHW.mean((2, 3)))
        found[-1] = F.adaptive_avg_pool2d(x_NCHW, (ROWS, 1)).flatten(1)
        return torch.cat(found, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Features [N, F] of pictures in [-1, 1]: whitened, and beyond three deviations squashed.

        Else a kernel of the third power would see nothing but the few oddest crops.
        """
        white_NF = (self.pooled(x_NCHW) - self.mean_P) @ self.whitening_PF
        return 3 * torch.tanh(white_NF / 3)

    def told(self, x_NCHW: Tensor) -> dict[str, Tensor]:
        """What the heads say of pictures in [-1, 1]."""
        pooled_NP = self.norm(self.pooled(x_NCHW))
        return {name: head(pooled_NP) for name, head in self.heads.items()}


def features(network: Network, pictures: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """[N, F] of uint8 pictures [H, W, 3], each of its own size."""
    with torch.no_grad():
        rows = [network(_to_input(picture[None])) for picture in pictures]
    return torch.cat(rows).numpy()


def load(path: Path = WEIGHTS) -> Network:
    """The trained network; trained now, and stored, where the weights are absent."""
    if not path.exists():
        print(f"no {path.name}; training it, a few minutes", file=sys.stderr, flush=True)
        store(train(STEPS), path)
    network = Network()
    network.load_state_dict(load_file(path))
    return network.eval()


def store(network: Network, path: Path) -> None:
    """Convolutions in half precision; in place of what was there only once all is written."""
    kept = {
        name: value.half() if name.startswith("layers") else value
        for name, value in network.state_dict().items()
    }
    fresh = path.with_suffix(".new")
    save_file(kept, fresh)
    fresh.chmod(0o644)
    fresh.replace(path)


def train(steps: int) -> Network:
    """The network after so many steps; one thread, the same bits every time on one machine."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network, began = Network(), time.monotonic()
    optimiser = torch.optim.AdamW(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for step in range(steps):
        pictures_NCHW, asked = batch(step)
        loss = loss_of(network, pictures_NCHW, asked)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 25 == 24:
            print(step + 1, f"loss {loss:.3f}", f"{time.monotonic() - began:.0f} s", flush=True)
    _whiten(network, steps)
    return network


def batch(step: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Pictures [N, 3, H, W] in [-1, 1] and what is to be told of each."""
    rng = np.random.default_rng((3, step))
    made = [_example(rng, FIRST_SEED + step * BATCH + i) for i in range(BATCH)]
    asked = {name: torch.tensor([facts[name] for _, facts in made]) for name in made[0][1]}
    return torch.cat([x for x, _ in made]), asked


def _example(rng: np.random.Generator, seed: int) -> tuple[Tensor, dict[str, float]]:
    """A whole scene, or a window of a larger one, now and then as if enlarged."""
    scene = scenes.scene_from(seed)
    drawn = int(rng.choice(len(DRAWN), p=(0.6, 0.2, 0.2)))
    top, left = (int(x) for x in rng.integers(DRAWN[drawn] - SIDE + 1, size=2))
    picture = scenes.draw(scene, DRAWN[drawn], DRAWN[drawn], (top, left, SIDE, SIDE))
    enlarged = float(rng.choice((1.0, rng.uniform(1.2, 4.0))))
    x_NCHW = _to_input(picture[None])
    if enlarged > 1:
        kind = {"mode": "bicubic", "antialias": True}
        small = F.interpolate(x_NCHW, size=(round(SIDE / enlarged),) * 2, **kind)
        x_NCHW = F.interpolate(small, size=(SIDE, SIDE), **kind)
    facts = {name: words.index(getattr(scene, name)) for name, words in NAMED.items()}
    return x_NCHW, {**facts, "drawn": drawn, "enlarged": float(np.log2(enlarged))}


def loss_of(network: Network, pictures_NCHW: Tensor, asked: dict[str, Tensor]) -> Tensor:
    """Cross-entropies of the names, where the whole scene is seen, and of the drawn size."""
    told = network.told(pictures_NCHW)
    whole = asked["drawn"] == 0
    named = [F.cross_entropy(told[name][whole], asked[name][whole]) for name in NAMED]
    blur = F.mse_loss(told["enlarged"][:, 0], asked["enlarged"].float())
    return sum(named, F.cross_entropy(told["drawn"], asked["drawn"]) + 4 * blur)


@torch.no_grad()
def _whiten(network: Network, first: int) -> None:
    """Features: principal directions of real scenes and windows, each with deviation 1.

    Over pictures that were not trained on, and of those that are as they were drawn.
    """
    network.eval()
    made = [batch(first + i) for i in range(24)]
    rows_NP = torch.cat([network.pooled(x[asked["enlarged"] == 0]) for x, asked in made]).double()
    deviation_P = rows_NP.std(0)
    # An activation that is almost always 0 would else count for more than all others.
    deviation_P = deviation_P.clamp_min(0.1 * deviation_P.median())
    covariance_PP = torch.cov(((rows_NP - rows_NP.mean(0)) / deviation_P).T)
    power_P, direction_PP = torch.linalg.eigh(covariance_PP)
    chosen = slice(-NUM_FEATURES, None)
    whitening_PF = direction_PP[:, chosen] / power_P[chosen].sqrt() / deviation_P[:, None]
    network.mean_P.copy_(rows_NP.mean(0))
    network.whitening_PF.copy_(whitening_PF)


def _to_input(pictures_NHWC: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pictures_NHWC.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def accuracy(network: Network, first: int, number: int = 8) -> dict[str, float]:
    """Shares told right of unseen whole scenes; of `enlarged` the error in doublings."""
    right: dict[str, list[float]] = {}
    for index in range(number):
        pictures_NCHW, asked = batch(first + index)
        told = network.told(pictures_NCHW)
        whole = asked["drawn"] == 0
        for name in (*NAMED, "drawn"):
            hits = told[name].argmax(1) == asked[name]
            right.setdefault(name, []).extend(hits[whole].float().tolist())
        off = (told["enlarged"][:, 0] - asked["enlarged"]).abs()
        right.setdefault("enlarged", []).extend(off.tolist())
    return {name: float(np.mean(values)) for name, values in right.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    network = train(options.steps)
    store(network, options.out)
    print({k: round(v, 3) for k, v in accuracy(network, options.steps + 24).items()})


if __name__ == "__main__":
    main()
