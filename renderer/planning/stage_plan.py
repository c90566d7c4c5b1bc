"""What is decided of one stage: its canvas, bands and noise levels."""

from __future__ import annotations

from dataclasses import dataclass

from frieze.cluster.layout import Band, Canvas

from ..models.family import Guidance
from ..sampling.noise_levels import NoiseLevel, Table
from ..spec.edits import Edit


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
