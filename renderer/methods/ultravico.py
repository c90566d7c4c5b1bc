"""UltraViCo (arXiv 2511.20123): logits between frames of a clip decay with their distance.

Attention that spreads over more frames than were trained on repeats and blurs; each query keeps a
window as long as the trained clip, and what it likes beyond that counts for less. Text is exempt.
The released mask of the first frame's queries is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..checkpoints.facts import ModelFacts
from ..errors import PlanError, SpecError
from ..extrapolation.cascade import stages_of
from ..extrapolation.method import Method, Stage
from ..models.positions import RotaryAxis
from ..spec import method_options
from ..spec.method_options import Option
from ..spec.render_spec import RenderSpec

if TYPE_CHECKING:
    from frieze.kernels.decay import Decay

OPTIONS = {
    # Factors of positive logits: beyond the window, and near the periods; the paper's for Wan.
    "alpha": Option(0.9, above=0, most=1),
    "beta": Option(0.6, above=0, most=1),
    # Frames to both sides of the periods' multiples.
    "gamma": Option(4.0, least=0),
    # After how many frames of tokens the model repeats itself; Wan does not.
    "periods": Option((), "numbers", above=0),
}


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """One stage; positions stay. Raises `PlanError` for pictures, which have no frames."""
    found = method_options.read(spec, OPTIONS)
    if not facts.video:
        raise PlanError(
            f"method ultravico is for the frames of clips, and {facts.family} draws pictures; "
            "method eaac or ultraimage concentrates attention over a picture"
        )
    if found["periods"] and found["beta"] > found["alpha"]:
        raise SpecError(
            f"option beta {found['beta']:g} is more than alpha {found['alpha']:g}; frames that "
            "repeat must decay at least as much as others"
        )

    def decay(axis: RotaryAxis) -> Decay:
        from frieze.kernels.decay import Decay

        return Decay(window=axis.trained, **found)

    return Method(stages=stages_of(spec, (Stage(),)), decay=decay)
