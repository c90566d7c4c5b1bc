"""Tiny Wan checkpoints, their conditioning and their canvas, for the tests of the family.

Shape suffixes: B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from checkpoints import build
from frieze.cluster.bands import BandMode, Marks
from frieze.cluster.comm import Comm, run_threads
from frieze.cluster.layout import Band, Canvas
from frieze.renderer import RenderSpec
from frieze.renderer.checkpoints.checkpoint import describe
from frieze.renderer.checkpoints.facts import ModelFacts
from frieze.renderer.families import wan
from frieze.renderer.models.family import BandPlace
from frieze.renderer.models.positions import trained
from frieze.renderer.sampling.noise_levels import NoiseLevel
from support.shared import Once

CPU = torch.device("cpu")
HIGH, LOW = NoiseLevel(950.0, 0.05, 0.95), NoiseLevel(500.0, 0.5, 0.5)
CANVAS = Canvas(3, 10, 6)
CUTS = [(Band(0, 6), Band(6, 10)), (Band(0, 2), Band(2, 8), Band(8, 10))]
WHOLE = (Band(0, 10),)
Drawn = Callable[[Tensor, BandPlace], Tensor]


class Models:
    """Checkpoints and what is loaded from them, each once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._once = Once()

    def checkpoint(self, name: str) -> Path:
        """A layout of tests/checkpoints."""
        return self._once(f"folder {name}", lambda: build(name, self.folder / name))

    def facts(self, name: str) -> ModelFacts:
        return describe(str(self.checkpoint(name)))

    def spec(self, name: str, **fields: Any) -> RenderSpec:
        fixed = {"model": str(self.checkpoint(name)), "height": 80, "width": 48}
        return RenderSpec(prompt="a red sun", **({"dtype": "float32"} | fixed | fields))

    def model(self, name: str) -> wan.Wan:
        facts, spec = self.facts(name), self.spec(name)
        return self._once(f"model {name}", lambda: wan.load(facts, spec, CPU))

    def pipeline(self, name: str) -> Any:
        """The stock pipeline, whose modules nobody has changed."""
        import diffusers

        kind, folder = getattr(diffusers, self.facts(name).pipeline), self.checkpoint(name)
        load = lambda: kind.from_pretrained(folder, torch_dtype=torch.float32)  # noqa: E731
        return self._once(f"stock {name}", load)


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def latents() -> Tensor:
    return noise(1, 16, *(CANVAS.frames, CANVAS.height, CANVAS.width))


def first_frame(downscale: int = 8) -> Tensor:
    """Pixels of a picture over the canvas, [1, 3, 1, H, W] in [-1, 1]."""
    return noise(1, 3, 1, CANVAS.height * downscale, CANVAS.width * downscale).clamp(-1, 1)


def tensors(name: str) -> dict[str, Tensor]:
    """Conditioning as `encode` and `image_condition` give it, over the whole canvas."""
    found = {"embeds": noise(1, 512, 16, seed=2)}
    if name.endswith("i2v"):
        found["condition"] = noise(1, 20, CANVAS.frames, CANVAS.height, CANVAS.width, seed=3)
    if name == "wan-i2v":
        found["image_embeds"] = noise(1, 17, 16, seed=4)
    return found


def rows_of(values: Mapping[str, Tensor], band: Band) -> dict[str, Tensor]:
    """A band's rows of what has rows."""
    return {
        name: x[..., band.start : band.stop, :] if x.ndim == 5 else x for name, x in values.items()
    }


def largest(x: Tensor) -> float:
    return float(x.abs().max())


def distance(a: Tensor, b: Tensor) -> float:
    """Relative to the largest value of b."""
    assert a.shape == b.shape
    return largest(a - b) / largest(b)


def on_bands(
    work: Drawn, x: Tensor, bands: Sequence[Band], marks: Sequence[Marks], scale: int = 1
) -> Tensor:
    """`work` of every band of x, which has `scale` rows a latent row."""

    def rank(comm: Comm) -> Tensor:
        own = bands[comm.rank]
        rows = own.scaled(scale)
        with torch.no_grad(), BandMode(comm, bands, marks=marks, canvas=CANVAS):
            return work(x[..., rows.start : rows.stop, :], BandPlace(own, CANVAS, trained))

    return torch.cat(run_threads(rank, len(bands)), dim=-2)
