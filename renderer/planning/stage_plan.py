"""What is decided of one stage: its canvas, bands and noise levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from frieze.cluster.layout import Band, Canvas, Mesh

from ..models.family import Guidance
from ..sampling.noise_levels import NoiseLevel, Table
from ..spec.edits import Edit


def stage_bands(shares: Sequence[Band], mesh: Mesh) -> tuple[Band, ...]:
    """The bands of which so many workers keep shares: two each, where a prompt is for each."""
    pairs = [shares[i : i + mesh.guidance] for i in range(0, len(shares), mesh.guidance)]
    return tuple(Band(pair[0].start, pair[-1].stop) for pair in pairs)


@dataclass(frozen=True)
class StagePlan:
    """One stage: its canvas in latent cells, who draws which rows, and its noise levels.

    `shares` are the rows that each worker keeps, saves and decodes; `bands` those that it
    denoises: the same, unless two workers draw one band for two prompts, and keep half of it each.
    """

    canvas: Canvas
    bands: tuple[Band, ...]
    shares: tuple[Band, ...]
    align: int
    table: Table
    start: float
    enlarge: str
    prompt: str
    guidance: Guidance
    # What is drawn otherwise in parts of it, each behind the masks of the store in this order.
    edits: tuple[Edit, ...] = ()

    @property
    def prompts(self) -> tuple[str, ...]:
        """Its own, then its edits'."""
        return (self.prompt, *(edit.prompt for edit in self.edits))

    @property
    def levels(self) -> tuple[NoiseLevel, ...]:
        """Noise levels, one more than steps."""
        return self.table.levels

    @property
    def num_steps(self) -> int:
        """Steps of this stage: intervals between noise levels."""
        return len(self.levels) - 1
