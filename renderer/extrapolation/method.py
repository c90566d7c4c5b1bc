"""Method: an extrapolation recipe as an immutable record of optional slots.

`Method()` is the plain model. A file in `methods/` defines `method(spec, facts) -> Method`, and
`Options`, the record of what it can be told (method_options.py), if there is anything.
Shape suffixes: S tokens, F frequencies of one axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ..models.positions import AbsolutePolicy, PositionPolicy, RotaryAxis, trained

if TYPE_CHECKING:
    from torch import Tensor

    from frieze.cluster.attention import AttentionShape, KeyTurns
    from frieze.cluster.bands import BlockPool, ConvShape
    from frieze.cluster.layout import Canvas
    from frieze.kernels.decay import Decay

    from ..checkpoints.facts import ModelFacts
    from ..sampling.noise_levels import NoiseLevel
    from ..spec.lora_refs import LoraRef
    from ..spec.stage_spec import Enlargement, Spacing
    from .guides import Guide
    from .method_options import SizeTold
    from .skip_filter import FreeU


@dataclass(frozen=True)
class Stage:
    """One resolution of a cascade: size relative to the picture, and the sigma it starts from.

    `enlarge` says in which space the stage before is enlarged: `pixels` (decoded, bicubic,
    encoded again) keeps edges clean; `latents` spares the decoder, and `latents_linear` is the
    same by linear interpolation. `prompt`, the guidance scales, the scheduler and the LoRAs are the
    stage's own, None the picture's; so is what it attends to (spec/attend.py); `scheduler_options`
    change the picture's. `spacing` are the times of flow's steps before the shift: the
    checkpoint's, or `even`, which leaves out both ends' neighbours: 1, 1 - 1/n, ... 1/n.
    """

    scale: float = 1.0
    start: float = 1.0
    steps: int | None = None
    shift: float | None = None
    enlarge: Enlargement = "pixels"
    prompt: str | None = None
    guidance_scale: float | None = None
    true_cfg_scale: float | None = None
    spacing: Spacing = "checkpoint"
    scheduler: str | None = None
    scheduler_options: Mapping[str, Any] = field(default_factory=dict)
    lora: tuple[LoraRef, ...] | None = None
    lora_2: tuple[LoraRef, ...] | None = None
    attend: str | None = None


@dataclass(frozen=True)
class Spectrum:
    """Power of the latent tokens of a whole canvas, by frequency bin, the same on every rank."""

    row: Tensor
    column: Tensor
    radial: Tensor


# (axis, sigma, spectrum) -> what cos and sin of the axis are multiplied by, in queries and keys:
# one number, or one for each frequency.
GainPolicy = Callable[["RotaryAxis", float, "Spectrum | None"], "Tensor | float"]


# rotary axes -> where the canvas' keys stand for each tile of queries; None as they are.
KeyPolicy = Callable[[Sequence["RotaryAxis"]], "KeyTurns | None"]


# (frame axis, longer than trained) -> how logits decay with the distance between its frames.
DecayPolicy = Callable[["RotaryAxis"], "Decay"]


@dataclass(frozen=True)
class Focus:
    """How strongly heads concentrate.

    `scale` makes factors on the logits, one for each head [layers, heads], from the entropies of
    the first step in nats; `pooled` is the side of the blocks that these are pooled over, if they
    are. `constant` makes one factor for all from (tokens, trained tokens), `of_frame` from the
    image tokens of one latent frame, 1 up to the trained ones.
    """

    scale: Callable[[Tensor], Tensor] | None = None
    constant: Callable[[int, int], float] | None = None
    of_frame: Callable[[int], float] | None = None
    pooled: int | None = None


@dataclass(frozen=True)
class StepContext:
    """All that a rule of one step may depend on; none counts calls, so every step can be resumed.

    `canvas` is in latent cells, `scale` by how much it exceeds the trained size in rows and
    columns, `seed` the picture's. All ranks and both halves of the guidance have the same.
    """

    stage: int
    step: int
    num_steps: int
    level: NoiseLevel
    canvas: Canvas
    scale: tuple[float, float]
    seed: int = 0
    long_side: float = 1.0  # of the training size, that positions are known for

    @staticmethod
    def of(
        facts: ModelFacts,
        seed: int,
        canvas: Canvas,
        levels: Sequence[NoiseLevel],
        *,
        stage: int,
        step: int,
    ) -> StepContext:
        """Of one step of a stage with these noise levels."""
        trained = facts.training_size / facts.latent.downscale
        scale = (canvas.height / trained, canvas.width / trained)
        return StepContext(
            stage, step, len(levels) - 1, levels[step], canvas, scale, seed, facts.long_side
        )

    @property
    def is_beyond(self) -> bool:
        """Whether the canvas is larger than the model was trained on; else nothing is changed."""
        return max(self.scale) > 1

    @property
    def interpolated(self) -> tuple[float, float]:
        """The spacing of positions that are divided by how much longer than trained an axis is."""
        down, across = (max(1.0, scale / self.long_side) for scale in self.scale)
        return down, across


# (step, layer, rows and columns of its tokens on the canvas) -> what its queries ask; None for
# the whole canvas.
WindowPolicy = Callable[["StepContext", str, int, int], "AttentionShape | None"]


# step -> how many rows, and columns, of tokens turn as far as one did in training; never below 1.
TokenSpacing = Callable[["StepContext"], tuple[float, float]]


@dataclass(frozen=True)
class Convolutions:
    """How a U-Net's convolutions walk over a canvas that is larger than trained.

    `rule` gives a step's geometry, None the network's own. It names no layer that is not in
    `layers` and no pool that is not in `pools`.
    """

    rule: Callable[[StepContext], ConvShape | None]
    layers: tuple[str, ...] = ()
    pools: tuple[BlockPool, ...] = ()

    def shape(self, context: StepContext) -> ConvShape | None:
        """The geometry of a step; None where the canvas is no larger than trained."""
        return self.rule(context) if context.is_beyond else None


@dataclass(frozen=True)
class ControlMap:
    """At what size a ControlNet runs on a canvas that is larger than trained, and for how long.

    The map's longer side is the trained one of `side` latent cells, and both are multiples of 8.
    It counts until this part of a stage's steps.
    """

    side: int
    until: float

    def size(self, canvas: Canvas) -> tuple[int, int] | None:
        """Its rows and columns of latents; None where the canvas is no larger than trained."""
        factor = max(canvas.height, canvas.width) / self.side
        if factor <= 1:
            return None
        rows, columns = (max(8, int(n // factor // 8 * 8)) for n in (canvas.height, canvas.width))
        return rows, columns


@dataclass(frozen=True)
class Detection:
    """The wish of a method that frequencies be found, before it draws, which would repeat.

    `detector` says how: by drafts of the picture, or by attention at the trained size. `settled`
    makes the method that corrects the frequencies of these indices from 0, and has no such wish.
    """

    detector: Literal["draft", "attention"]
    settled: Callable[[Sequence[int]], Method]


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
    windows: WindowPolicy | None = None
    key_positions: KeyPolicy | None = None
    token_spacing: TokenSpacing | None = None  # of positions that are interpolated, of no others
    convolutions: Convolutions | None = None
    control: ControlMap | None = None  # None: a ControlNet runs on the canvas itself
    guide: Guide | None = None  # of every stage but the first, by the one before it
    detection: Detection | None = None
    skips: FreeU | None = None
    # What goes from one noise level of flow to the next: the checkpoint's solver, or Euler's.
    solver: Literal["checkpoint", "euler"] = "checkpoint"
    # Whose size SDXL's network is told at every stage: the stage's own, or the first one's.
    micro_conditioning: SizeTold = "canvas"
    note: str = ""
