"""What a plan warns of: words of a spec that will leave nothing in the picture."""

from __future__ import annotations

from ..checkpoints.facts import ModelFacts
from ..sampling.noise_levels import NoiseLevel
from ..spec.render_spec import RenderSpec

# Methods that are nothing at the trained size by what they say of themselves.
UNTOLD = ("none", "auto")


def plan_warnings(
    spec: RenderSpec, facts: ModelFacts, first: NoiseLevel | None, by_decoder: bool
) -> list[str]:
    """Lines of a plan's table. `first` is the noise level that the first stage begins with, None
    where nothing is denoised; `by_decoder`, whether a decoder makes the size asked for."""
    size = facts.training_size
    is_known = max(spec.height, spec.width) <= size or by_decoder
    told = []
    if is_known and spec.num_frames <= facts.training_frames and spec.method not in UNTOLD:
        told.append(f"method {spec.method} changes nothing up to the trained {size} px")
    # A mask and a place keep the picture at every step; of an init alone the first level decides.
    if spec.init is not None and not spec.inpaints and first is not None and first.alpha == 0:
        told.append(
            f"strength {spec.strength:g} of {spec.num_inference_steps} steps begins with noise "
            "alone, as in diffusers: init leaves no trace; use a lower strength, or more steps"
        )
    return [f"warning   {line}" for line in told]
