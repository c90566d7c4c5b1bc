"""What a model family must state, and what the renderer may ask of a loaded model.

A file in `families/` defines `pipelines` (the class names in model_index.json it serves),
`describe(folder)`, `load(facts, spec, device)`, `encode(facts, spec, device, halves, image)` and
`text_shapes(facts, spec)`, the shapes of what `encode` gives for one prompt: `embeds` [1, L, E] are
its tokens, `pooled`, if there is one, stands for all of it.
`describe` reads only small JSON files, so that planning needs neither weights nor torch.

Latents and pixels are [B, C, T, H, W] throughout; T is 1 for pictures.
Shape suffixes: B batch, C channels, T frames, H rows of a band, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from frieze.cluster.layout import Band, Canvas

from ..checkpoints.facts import ModelFacts
from ..sampling.noise_levels import NoiseLevel
from .positions import AbsolutePolicy, PositionPolicy, RotaryAxis

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from frieze.cluster.attention import Regions
    from frieze.cluster.bands import BlockRun, Marks

    from .truncation import Cut


# What ControlNets see of the pictures that they follow, and the tensor that holds it.
Seen = Literal["pixels", "latents"]
CONTROL_TENSORS: dict[Seen, str] = {"pixels": "control", "latents": "control_encoded"}


@dataclass(frozen=True)
class Control:
    """How a ControlNet counts in one render: how strongly, in which part of a stage's steps.

    `mode` is which of its kinds a union of ControlNets follows; `guesses`, as diffusers' guess
    mode: it is not asked for a negative prompt, and its deeper features count more.
    """

    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    mode: int | None = None
    guesses: bool = False

    def at(self, step: int, num_steps: int) -> Control:
        """The same at one step: strength 0 where it does not count, as diffusers decides it."""
        is_early, is_late = step / num_steps < self.start, (step + 1) / num_steps > self.end
        return replace(self, scale=0.0) if is_early or is_late else self


@dataclass(frozen=True)
class Guidance:
    """Guidance as one render uses it: at `scale` 1 there is no negative half.

    `controls` are those of its ControlNets, in their order.
    """

    scale: float = 1.0
    embedded: float = 0.0
    scale_2: float | None = None
    controls: tuple[Control, ...] = ()

    def at(self, step: int, num_steps: int) -> Guidance:
        """The same at one step, of which ControlNets depend."""
        return replace(self, controls=tuple(each.at(step, num_steps) for each in self.controls))

    @property
    def follows(self) -> bool:
        """Whether a ControlNet counts."""
        return any(control.scale for control in self.controls)

    @property
    def num_halves(self) -> int:
        """Evaluations of the network a step: 2 with classifier-free guidance."""
        return 2 if self.scale != 1.0 else 1


@dataclass(frozen=True)
class Conditioning:
    """The encoded prompts, (positive,) or (positive, negative); the same tensors on every rank.

    `cuts` are the parts of them that their encoders do not read, `remarks` what else is to be told.
    """

    halves: tuple[Mapping[str, Tensor], ...] = ()
    cuts: tuple[Cut, ...] = ()
    remarks: tuple[str, ...] = ()

    def on(self, device: Any) -> Conditioning:
        """The same on a device."""
        halves = tuple({k: v.to(device) for k, v in h.items()} for h in self.halves)
        return replace(self, halves=halves)


@dataclass(frozen=True)
class BandPlace:
    """Where on which canvas a band of latents lies, and what positions mean there.

    Where `regions` of the canvas have prompts of their own, `texts` are the tokens of each one's:
    `embeds` are then all of these, one text after the other, and each has positions as if it were
    alone. The `Context` of layers that ask text says so.
    `told` is the canvas whose size the network is told, where it is told one; None for its own.
    `columns` are those of a tile, None for all.
    """

    band: Band
    canvas: Canvas
    positions: PositionPolicy
    absolute: AbsolutePolicy | None = None
    texts: tuple[int, ...] = ()
    regions: Regions | None = None
    told: Canvas | None = None
    columns: Band | None = None

    @property
    def across(self) -> Band:
        """The columns that are drawn."""
        return self.columns or Band(0, self.canvas.width)

    @property
    def drawn(self) -> Canvas:
        """What tokens attend to: the canvas, or a tile of it."""
        if self.columns is None:
            return self.canvas
        return Canvas(self.canvas.frames, self.band.rows, self.columns.rows)


@dataclass(frozen=True)
class Tail:
    """The decoder's last layers, whose normalisation is the last thing that mixes rows widely."""

    norm: nn.GroupNorm
    activation: nn.Module
    conv: nn.Conv2d


class Model(Protocol):
    """A loaded checkpoint on one device; one object may serve many rank threads."""

    facts: ModelFacts
    decoder_marks: Sequence[Marks]
    encoder_marks: Sequence[Marks]
    # None: the decoder normalises no canvas, and gives pixels frame group by frame group.
    tail: Tail | None
    # What makes tokens of latents, where positions are rotary: their spectrum may be asked for.
    embedders: Sequence[nn.Module]
    # Where there is one: methods may give its convolutions another geometry.
    unet: nn.Module

    def denoiser_marks(self, level: NoiseLevel) -> Sequence[Marks]:
        """The marks of the network that serves this noise level."""

    def block_run(self, level: NoiseLevel) -> BlockRun:
        """The blocks of that network, where facts count some: a step cache may leave them out."""

    def axes(self, place: BandPlace) -> tuple[RotaryAxis, ...]:
        """Rotary axes in the order of a head's channels; none where positions are not rotary."""

    def denoised(
        self,
        x_BCTHW: Tensor,
        level: NoiseLevel,
        tensors: Mapping[str, Tensor],
        place: BandPlace,
        guidance: Guidance,
    ) -> Tensor:
        """The estimate of this band's clean latents (always x0) under one half's conditioning."""

    def guided(
        self,
        x_BCTHW: Tensor,
        level: NoiseLevel,
        positive: Tensor,
        negative: Tensor,
        guidance: Guidance,
    ) -> Tensor:
        """Both halves' x0 as one: classifier-free guidance (arXiv 2207.12598)."""

    def features(self, x_BCTHW: Tensor) -> Tensor:
        """The decoder up to, and without, its tail: [B, C, H, W]."""

    def frames(self, x_BCTHW: Tensor) -> Sequence[Callable[[], Tensor]]:
        """Without a tail: what gives the pixels [B, 3, t, H, W] of the next t frames, in order."""

    def encoded(self, pixels_BCTHW: Tensor) -> Tensor:
        """Latents of this band's pixels in [-1, 1]: the mode of the posterior."""

    def image_condition(self, pixels_BCTHW: Tensor, place: BandPlace) -> Mapping[str, Tensor]:
        """What a first frame [B, 3, 1, H, W] adds to both halves' tensors, for this band."""

    def inpaint_condition(self, pixels_BCTHW: Tensor) -> Mapping[str, Tensor]:
        """Of a network that inpaints: what a picture [B, 4, 1, H, W] adds to both halves' tensors.

        Its channels are red, green and blue in [-1, 1], and how much of a pixel is drawn.
        """


def linear_guided(positive: Tensor, negative: Tensor, scale: float) -> Tensor:
    """negative + scale (positive - negative): the same for x0, velocity and noise."""
    return negative + scale * (positive - negative)
