"""What a decoder of any size changes in a plan: what is denoised, and who decodes which rows."""

from __future__ import annotations

import math

from frieze.cluster.layout import Band, LayoutError, cut

from ..checkpoints import decoder
from ..checkpoints.decoder import PIXELS_A_TOKEN, DecoderFacts
from ..checkpoints.facts import ModelFacts
from ..errors import PlanError
from ..spec.render_spec import RenderSpec
from .checks import TooManyWorkersError


def described(spec: RenderSpec, facts: ModelFacts) -> DecoderFacts | None:
    """The spec's decoder of any size, None where the autoencoder decodes; raises `ModelError`."""
    return None if spec.decoder is None else decoder.describe(spec.decoder, facts)


def drawn(spec: RenderSpec, facts: ModelFacts) -> RenderSpec:
    """The spec of what is denoised: the same shape at the trained size, or smaller if asked.

    Sides are whole units of the model, so the shape is the asked one's as nearly as they allow.
    """
    if spec.decoder is None:
        return spec
    unit = facts.latent.unit
    scale = min(1.0, facts.training_size / math.sqrt(spec.height * spec.width))
    height, width = (
        max(1, round(side * scale / unit)) * unit for side in (spec.height, spec.width)
    )
    return spec.model_copy(update={"height": height, "width": width})


def check(asked: RenderSpec, drawn: RenderSpec, unit: int) -> None:
    """The picture is of whole tokens of the decoder; what is denoised has a row for each worker.

    `PlanError` names the nearest that works.
    """
    for name, value in (("height", asked.height), ("width", asked.width)):
        if value % PIXELS_A_TOKEN:
            near = max(1, round(value / PIXELS_A_TOKEN)) * PIXELS_A_TOKEN
            raise PlanError(
                f"{name} {value} is no multiple of {PIXELS_A_TOKEN}, which the decoder needs; "
                f"the nearest that works is {near}"
            )
    most = drawn.height // unit
    if asked.most_workers > most:
        raise TooManyWorkersError(
            f"{asked.most_workers} workers are more than the {most} rows of tokens of the "
            f"{drawn.width}x{drawn.height} picture that the decoder enlarges",
            most,
        )


def rows(spec: RenderSpec, block: int) -> tuple[Band, ...]:
    """The picture's rows of each worker, of whole blocks; raises `PlanError`."""
    try:
        return cut(spec.height, spec.workers, align=block)
    except LayoutError as error:
        raise PlanError(f"a picture of {spec.height} rows: {error}") from None
