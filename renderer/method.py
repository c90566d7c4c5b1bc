"""Method: an extrapolation recipe as an immutable record of optional slots.

`Method()` is the plain model. A file in `methods/` defines `method(spec, facts) -> Method`.
Shape suffixes: S tokens, F frequencies of one axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from frieze.kernels.decay import Decay

    from .family import ModelFacts
    from .guides import Guide
    from .spec import RenderSpec


@dataclass(frozen=True)
class Axis:
    """One rotary axis: `dim` channels, base `theta`, `trained` and present length in tokens."""

    name: str
    dim: int
    theta: float
    trained: int
    length: int


# (axis, position_S in tokens, sigma) -> angle_SF in radians.
PositionPolicy = Callable[["Axis", "Tensor", float], "Tensor"]


def frequencies(axis: Axis, like: Tensor) -> Tensor:
    """omega_j = theta^(-2j/dim), zero-based (RoPE, arXiv 2104.09864 eq. 15), float64."""
    import torch

    j = torch.arange(0, axis.dim, 2, dtype=torch.float64, device=like.device)
    return 1.0 / axis.theta ** (j / axis.dim)


def trained(axis: Axis, position_S: Tensor, sigma: float) -> Tensor:
    """The angles the model was trained with, continued beyond the trained length."""
    return position_S.double()[:, None] * frequencies(axis, position_S)[None, :]


def squeeze(trained_length: int, length: int) -> float:
    """What positions are divided by: length / trained length, and never less than 1."""
    return max(1.0, length / trained_length)


def interpolated(axis: Axis, position_S: Tensor, sigma: float) -> Tensor:
    """Angles at positions squeezed into the trained range; the identity at the trained length."""
    return trained(axis, position_S.double() / squeeze(axis.trained, axis.length), sigma)


@dataclass(frozen=True)
class Stage:
    """One resolution of a cascade: size relative to the picture, and the sigma it starts from.

    `enlarge` says in which space the stage before is enlarged: `pixels` (decoded, bicubic,
    encoded again) keeps edges clean; `latents` spares the decoder. `prompt` and `guidance_scale`
    are the stage's own, None the picture's.
    """

    scale: float = 1.0
    start: float = 1.0
    steps: int | None = None
    shift: float | None = None
    enlarge: Literal["latents", "pixels"] = "pixels"
    prompt: str | None = None
    guidance_scale: float | None = None


@dataclass(frozen=True)
class Spectrum:
    """Power of the latent tokens of a whole canvas, by frequency bin, the same on every rank."""

    row: Tensor
    column: Tensor
    radial: Tensor


# (trained, present length of an axis in tokens) -> what coordinates are divided by, in models that
# add positions to their tokens instead of rotating.
AbsolutePolicy = Callable[[int, int], float]

# (axis, sigma, spectrum) -> what cos and sin of the axis are multiplied by, in queries and keys:
# one number, or one for each frequency.
GainPolicy = Callable[["Axis", float, "Spectrum | None"], "Tensor | float"]

# (frame axis, longer than trained) -> how logits decay with the distance between its frames.
DecayPolicy = Callable[["Axis"], "Decay"]


@dataclass(frozen=True)
class Focus:
    """How strongly heads concentrate.

    `scale` makes factors on the logits, one for each head [layers, heads], from the entropies of
    the first step in nats; `pooled` is the side of the blocks that these are pooled over, if they
    are. `constant` makes one factor for all from (tokens, trained tokens).
    """

    scale: Callable[[Tensor], Tensor] | None = None
    constant: Callable[[int, int], float] | None = None
    pooled: int | None = None


@dataclass(frozen=True)
class Method:
    """What a recipe changes; every slot left alone means the plain model.

    `note` is what the plan says beside its name.
    """

    stages: tuple[Stage, ...] = (Stage(),)
    positions: PositionPolicy = trained
    absolute: AbsolutePolicy | None = None
    gains: GainPolicy | None = None
    needs_spectrum: bool = False
    focus: Focus | None = None
    decay: DecayPolicy | None = None
    guide: Guide | None = None  # of every stage but the first, by the one before it
    note: str = ""


def stages_of(spec: RenderSpec, default: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The spec's own cascade where it states one, else the recipe's."""
    if spec.stages is None:
        return default
    return tuple(Stage(**stage.model_dump()) for stage in spec.stages)


def from_trained_size(spec: RenderSpec, facts: ModelFacts) -> tuple[Stage, ...]:
    """The picture at the trained area, then at its own size, each from noise; one where it fits."""
    scale = facts.training_size / math.sqrt(spec.height * spec.width)
    return (Stage(),) if scale >= 1 else (Stage(scale=scale), Stage())


def doubling(spec: RenderSpec, facts: ModelFacts, starts: Sequence[float]) -> tuple[Stage, ...]:
    """Stages 1/2^k .. 1/2, 1, the first no larger than the trained area; `starts` as in `begun`."""
    ratio = math.sqrt(spec.height * spec.width) / facts.training_size
    levels = max(0, math.ceil(math.log2(ratio) - 1e-9))
    begins = enumerate(begun(levels, starts))
    return tuple(Stage(scale=0.5 ** (levels - i), start=start) for i, start in begins)


def begun(levels: int, starts: Sequence[float]) -> tuple[float, ...]:
    """Sigmas of a first stage, from noise, and of `levels` more: the last of `starts` holds on."""
    return (1.0, *(starts[min(i, len(starts) - 1)] for i in range(levels)))


def load_method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """The `Method` of the file named `spec.method`."""
    from . import plugins

    method = plugins.load("methods", spec.method).method(spec, facts)
    assert isinstance(method, Method)
    return method
