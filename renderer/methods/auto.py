"""What drew best past the trained size, in one word.

Sizes double from the trained one. Each stage restarts from the one before it, enlarged and noised
a little, with positions interpolated (arXiv 2306.15595) and heads concentrated by their entropies
(EAAC, arXiv 2512.04504); its low band follows the enlarged picture with falling weight, and tokens
lie half a token off at every other step (arXiv 2410.07536).

The evidence is tests/bench/results/quality.md, on the model that comes with the package, few
pictures a row. At twice the trained side it kept one sun with the sky above, where methods that
draw at full size at once, frequencies corrected or not, faded with the noise or not, repeat or
lose the order; only `pi` at once kept both, with more detail, of which part is, to the eye, the
grid of tokens that half-token shifts average away. On a canvas twice as wide as high `pi` at once
was better throughout, for there the first stage already is a shape that the model does not know. So
`none` stays what is done unless told otherwise. Other models were not measured.
"""

from __future__ import annotations

from .. import options
from ..family import ModelFacts
from ..guides import Resolution
from ..heads import concentration
from ..method import Focus, Method, doubling, interpolated, squeeze, stages_of, trained
from ..spec import RenderSpec

# Sigma at which the second and every later stage restarts.
STARTS = (0.4, 0.3)


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """One stage and the plain model up to the trained size; it has no options.

    Models that rotate no positions have them rescaled where they are added, and no head is
    concentrated. A first frame lies on whole tokens, so that half a token is not used then.
    """
    options.read(spec, {})
    stages = stages_of(spec, doubling(spec, facts, STARTS))
    return Method(
        stages=stages,
        positions=interpolated if facts.rotary else trained,
        absolute=None if facts.rotary else squeeze,
        focus=Focus(scale=concentration) if facts.rotary else None,
        guide=Resolution(half_token=spec.image is None),
        note=_note(len(stages), facts),
    )


def _note(num_stages: int, facts: ModelFacts) -> str:
    if num_stages == 1:
        return "one stage, no larger than trained"
    led = f"{num_stages} stages, each led by the one before"
    if facts.rotary:
        return f"{led}, positions interpolated, heads concentrated"
    return f"{led}; {facts.family} rotates no positions, so that no head is concentrated"
