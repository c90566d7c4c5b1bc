"""A family's network on a small canvas: drawn whole, on bands, or wrongly on bands that are alone.

Shape suffixes: B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from checkpoints import build
from frieze.cluster.bands import BandMode, Marks
from frieze.cluster.comm import Comm, run_threads
from frieze.cluster.layout import Band, Canvas
from frieze.renderer import RenderSpec
from frieze.renderer.checkpoints.checkpoint import describe, load_family
from frieze.renderer.checkpoints.facts import ModelFacts
from frieze.renderer.models.family import BandPlace, Guidance, Model
from frieze.renderer.models.positions import trained
from frieze.renderer.sampling.noise_levels import NoiseLevel

CPU = torch.device("cpu")
LEVEL = NoiseLevel(500.0, 0.5, 0.5)


@dataclass(frozen=True)
class Studio:
    """A tiny checkpoint, its facts, and its model in float64."""

    folder: Path
    facts: ModelFacts
    model: Any

    @classmethod
    def of(cls, name: str, folder: Path) -> Studio:
        """Made and loaded; one test module shares it."""
        facts = describe(str(build(name, folder / name)))
        model = load_family(facts.family).load(facts, spec(folder / name), CPU)
        tail = (model.tail.norm, model.tail.conv) if model.tail else ()
        for part in (*vars(model).values(), *tail):
            if isinstance(part, nn.Module):
                part.double()
        return cls(folder / name, facts, model)

    def network(self, kind: type) -> Any:
        """The stock transformer, whose modules nobody has changed, in float64."""
        return kind.from_pretrained(self.folder / "transformer").double().eval()


def spec(folder: Path, **fields: Any) -> RenderSpec:
    """A spec for a checkpoint."""
    plain = {"prompt": "a red sun", "height": 64, "width": 64, "dtype": "float32"}
    return RenderSpec(model=str(folder), **(plain | fields))


def noise(*shape: int, seed: int = 1) -> Tensor:
    """Always the same, float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def latents(facts: ModelFacts, canvas: Canvas, seed: int = 1) -> Tensor:
    """[1, C, T, H, W]."""
    return noise(1, facts.latent.channels, canvas.frames, canvas.height, canvas.width, seed=seed)


def whole(canvas: Canvas) -> tuple[Band]:
    """The only band there is."""
    return (Band(0, canvas.height),)


def rows_of(x: Tensor, band: Band, scale: int = 1) -> Tensor:
    """The band's rows of a canvas that has `scale` rows a latent row."""
    return x[..., band.start * scale : band.stop * scale, :]


def on_bands(
    work: Callable[[Tensor, Band], Tensor],
    x: Tensor,
    canvas: Canvas,
    bands: Sequence[Band],
    marks: Sequence[Marks],
    scale: int = 1,
) -> Tensor:
    """`work` of every band of x, inside the mode, put together."""

    def rank(comm: Comm) -> Tensor:
        band = bands[comm.rank]
        with torch.no_grad(), BandMode(comm, bands, marks=marks, canvas=canvas):
            return work(rows_of(x, band, scale), band)

    return torch.cat(run_threads(rank, len(bands)), dim=-2)


def denoised(
    studio: Studio,
    tensors: Mapping[str, Tensor],
    canvas: Canvas,
    bands: Sequence[Band],
    guidance: Guidance | None = None,
) -> Tensor:
    """x0 of the canvas, on these bands."""
    work = _work(studio.model, tensors, canvas, guidance)
    x, marks = latents(studio.facts, canvas), studio.model.denoiser_marks(LEVEL)
    return on_bands(work, x, canvas, bands, marks)


def denoised_alone(
    studio: Studio, tensors: Mapping[str, Tensor], canvas: Canvas, bands: Iterable[Band]
) -> Tensor:
    """The control: every band by itself, as if no other rank were there."""
    work, x = _work(studio.model, tensors, canvas), latents(studio.facts, canvas)
    return torch.cat([work(rows_of(x, band), band) for band in bands], dim=-2)


def _work(
    model: Model,
    tensors: Mapping[str, Tensor],
    canvas: Canvas,
    guidance: Guidance | None = None,
) -> Callable[[Tensor, Band], Tensor]:
    def work(x: Tensor, band: Band) -> Tensor:
        place = BandPlace(band, canvas, trained)
        return model.denoised(x, LEVEL, tensors, place, guidance or Guidance())

    return work


def distance(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest value of b."""
    assert a.shape == b.shape
    return float((a - b).abs().max() / b.abs().max())
