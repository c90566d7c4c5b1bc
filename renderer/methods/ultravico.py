"""UltraViCo (arXiv 2511.20123): logits between frames of a clip decay with their distance.

Attention that spreads over more frames than were trained on repeats and blurs; each query keeps a
window as long as the trained clip, and what it likes beyond that counts for less. Text is exempt.
The released mask of the first frame's queries is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from ..checkpoints.facts import ModelFacts
from ..errors import PlanError
from ..extrapolation.cascade import stages_of
from ..extrapolation.method import Method, Stage
from ..extrapolation.method_options import MethodOptions, NotNegative, Part, Positive, Several
from ..models.positions import RotaryAxis
from ..spec.render_spec import RenderSpec

if TYPE_CHECKING:
    from frieze.kernels.decay import Decay


class Options(MethodOptions):
    """Of UltraViCo; the defaults are the paper's for Wan."""

    alpha: Part = Field(default=0.9, description="factor of positive logits beyond the window")
    beta: Part = Field(default=0.6, description="the same near multiples of the periods")
    gamma: NotNegative = Field(default=4.0, description="frames to both sides of these multiples")
    periods: Several[Positive] = Field(
        default=(),
        description="frames of tokens after which the model repeats itself; "
        "default: it does not, as Wan",
    )

    @model_validator(mode="after")
    def _decays_more_where_it_repeats(self) -> Self:
        if self.periods and self.beta > self.alpha:
            raise ValueError(
                f"option beta {self.beta:g} is more than alpha {self.alpha:g}; frames that "
                "repeat must decay at least as much as others"
            )
        return self


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """One stage; positions stay. Raises `PlanError` for pictures, which have no frames."""
    options = Options.read(spec)
    if not facts.video:
        raise PlanError(
            f"method ultravico is for the frames of clips, and {facts.family} draws pictures; "
            "method eaac or ultraimage concentrates attention over a picture"
        )

    def decay(axis: RotaryAxis) -> Decay:
        from frieze.kernels.decay import Decay

        return Decay(window=axis.trained, **options.model_dump())

    return Method(stages=stages_of(spec, (Stage(),)), decay=decay)
