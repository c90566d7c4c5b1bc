"""What bands and blocks cannot be cut into: rows that workers, guides and convolutions need.

All raise `PlanError`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ...checkpoints.facts import ModelFacts
from ...errors import PlanError
from ...extrapolation.guides import Flow, Resolution, View
from ...extrapolation.method import Convolutions, Method, StepContext
from ...spec.render_spec import RenderSpec

if TYPE_CHECKING:
    from frieze.cluster.bands import ConvShape

    from ..stage_plan import StagePlan


class TooManyWorkersError(PlanError):
    """More workers than something has rows for: why, the `most` that it has, what else would do."""

    def __init__(self, reason: str, most: int, instead: str = "") -> None:
        super().__init__(reason, most, instead)
        self.reason, self.most, self.instead = reason, most, instead

    def __str__(self) -> str:
        workers = "1 worker" if self.most == 1 else f"{self.most} workers"
        return f"{self.reason}; use at most {workers}{self.instead}"


def check_block(size: int, spec: RenderSpec, unit: int) -> None:
    """Blocks of `size` pixels fit units, and there is a row of them for each worker."""
    if size % unit or size & (size - 1):
        raise PlanError(f"chunk {size} does not work; a power of two from {unit} to 512 does")
    rows = spec.height // size
    workers = spec.most_workers
    if workers > rows:
        raise TooManyWorkersError(
            f"{workers} workers are more than the {rows} rows of {size}-pixel blocks in a "
            f"height of {spec.height}",
            rows,
            " or a smaller chunk" if size > unit else "",
        )


def check_guide(
    method: Method,
    stages: Sequence[StagePlan],
    guided: Sequence[StagePlan],
    patch: int,
    *,
    animates: bool,
) -> None:
    """Raises `PlanError` for a guide that these stages, some of which it guides, cannot have.

    `animates`: there is a first frame, whose conditioning lies on the grid of whole tokens.
    """
    guide = method.guide
    if isinstance(guide, Resolution) and guide.is_on and guide.half_token and animates:
        raise PlanError("half_token True: a first frame lies on whole tokens; use false")
    for before, stage in itertools.pairwise(stages):
        if isinstance(guide, View):
            guide.region(before.canvas, stage.canvas, patch)
    for stage in guided:
        most = stage.canvas.width // 2 + 1
        if isinstance(guide, Flow) and len(stage.bands) > most:
            raise PlanError(
                f"{len(stage.bands)} bands are more than the {most} column frequencies of a "
                f"stage of {stage.canvas.width} latent columns; use fewer workers"
            )


def check_bands(
    spec: RenderSpec, facts: ModelFacts, method: Method, stages: Sequence[StagePlan]
) -> None:
    """Every band has as many rows as its neighbours' convolutions read of it."""
    for number, stage in enumerate(stages, 1):
        if method.convolutions is None or len(stage.bands) == 1:
            continue
        needed = max(
            (
                geometry.dilation * _cells_per_row(layer, facts.latent.patch)
                for shape in _shapes(method.convolutions, spec, facts, stage, number - 1)
                for layer, geometry in shape.convs.items()
            ),
            default=0,
        )
        least, downscale = min(band.rows for band in stage.bands), facts.latent.downscale
        if least < needed:
            most = stage.canvas.height // stage.align // -(-needed // stage.align)
            workers = max(1, most) * (len(stage.shares) // len(stage.bands))
            raise TooManyWorkersError(
                f"stage {number}: method {spec.method!r} reads {needed * downscale} rows of a "
                f"neighbour, and the lowest band has {least * downscale}",
                workers,
            )


def _shapes(
    convolutions: Convolutions,
    spec: RenderSpec,
    facts: ModelFacts,
    stage: StagePlan,
    stage_index: int,
) -> Iterator[ConvShape]:
    """What a stage's steps change of the convolutions."""
    for step in range(stage.num_steps):
        context = StepContext.of(
            facts, spec.seed, stage.canvas, stage.levels, stage=stage_index, step=step
        )
        if (shape := convolutions.shape(context)) is not None:
            yield shape


def _cells_per_row(layer: str, patch: int) -> int:
    """Latent cells to a row of the map that a layer of a U-Net reads."""
    level = re.match(r"down_blocks\.(\d+)\.", layer)
    return patch if level is None else int(2 ** int(level[1]))
