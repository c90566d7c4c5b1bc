"""What a model family must state, and what the renderer may ask of a loaded model.

A file in `families/` defines `pipelines` (the class names in model_index.json it serves),
`describe(folder)`, `load(facts, spec, device)` and `encode(facts, spec, device, halves, image)`.
`describe` reads only small JSON files, so that planning needs neither weights nor torch.

Latents and pixels are [B, C, T, H, W] throughout; T is 1 for pictures.
Shape suffixes: B batch, C channels, T frames, H rows of a band, W columns.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from safetensors import SafetensorError, safe_open

from frieze.cluster.layout import Band, Canvas

from . import hub, plugins
from .errors import ModelError
from .input_files import fault
from .method import AbsolutePolicy, Axis, PositionPolicy
from .model_configs import check_sizes, index_of
from .schedules import Level, Schedule
from .weight_files import check_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from frieze.cluster.bands import Marks

    from .truncation import Cut


@dataclass(frozen=True)
class LatentSpec:
    """Latent geometry: `downscale` pixels a latent cell, `patch` cells that stay together.

    The patch is a token's side, or the coarsest stride of a UNet. `temporal` is the number of
    frames that every latent frame but the first, which is one, stands for.
    """

    channels: int
    downscale: int
    patch: int
    temporal: int = 1

    @property
    def unit(self) -> int:
        """Pixels that one patch covers on a side; every size is a multiple of it."""
        return self.downscale * self.patch

    def frames(self, num_frames: int) -> int:
        """Latent frames of so many frames."""
        return (num_frames - 1) // self.temporal + 1


@dataclass(frozen=True)
class Cost:
    """What the planner needs to know of a network's size."""

    hidden: int
    num_layers: int
    weight_bytes: Mapping[str, int]
    decoder_channels: int


@dataclass(frozen=True)
class GuidanceFacts:
    """How a checkpoint is guided.

    `cfg` is the spec's field that holds the scale of classifier-free guidance, `neutral` the scale
    at which there is none, `embedded` says that the network is told a guidance scale, `defaults`
    are the pipeline's own values by field.
    """

    cfg: Literal["guidance_scale", "true_cfg_scale"] | None = None
    embedded: bool = False
    defaults: Mapping[str, float] = field(default_factory=dict)
    neutral: float = 1.0


@dataclass(frozen=True)
class ModelFacts:
    """Everything known of a checkpoint without loading it.

    `training_size` is pixels, `training_frames` frames; `square`: no other shape is known.
    `takes_image`: it animates a first frame, and without one if that is `image_optional`.
    `num_experts`: networks that take turns. `rotary`: its positions are angles. `float32_noise`:
    its pipeline draws noise in float32 whatever the weights' precision. `fixed_sequence_length`:
    its encoders read so many tokens, no more and no fewer.
    """

    family: str
    folder: str
    pipeline: str
    latent: LatentSpec
    schedule: Schedule
    training_size: int
    max_sequence_length: int
    cost: Cost
    guidance: GuidanceFacts = GuidanceFacts()
    video: bool = False
    takes_image: bool = False
    image_optional: bool = False
    rotary: bool = True
    square: bool = False
    num_experts: int = 1
    float32_noise: bool = False
    fixed_sequence_length: bool = False
    training_frames: int = 1

    @property
    def training_tokens(self) -> int:
        """Image tokens at the training size."""
        side = self.training_size // self.latent.unit
        return side**2 * self.latent.frames(self.training_frames)


@dataclass(frozen=True)
class Guidance:
    """Guidance as one render uses it: at `scale` 1 there is no negative half."""

    scale: float = 1.0
    embedded: float = 0.0
    scale_2: float | None = None

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
class Place:
    """Where on which canvas a band of latents lies, and what positions mean there."""

    band: Band
    canvas: Canvas
    positions: PositionPolicy
    absolute: AbsolutePolicy | None = None


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

    def denoiser_marks(self, level: Level) -> Sequence[Marks]:
        """The marks of the network that serves this noise level."""

    def axes(self, place: Place) -> tuple[Axis, ...]:
        """Rotary axes in the order of a head's channels; none where positions are not rotary."""

    def denoised(
        self,
        x_BCTHW: Tensor,
        level: Level,
        tensors: Mapping[str, Tensor],
        place: Place,
        guidance: Guidance,
    ) -> Tensor:
        """The estimate of this band's clean latents (always x0) under one half's conditioning."""

    def guided(
        self, x_BCTHW: Tensor, level: Level, positive: Tensor, negative: Tensor, guidance: Guidance
    ) -> Tensor:
        """Both halves' x0 as one: classifier-free guidance (arXiv 2207.12598)."""

    def features(self, x_BCTHW: Tensor) -> Tensor:
        """The decoder up to, and without, its tail: [B, C, H, W]."""

    def frames(self, x_BCTHW: Tensor) -> Sequence[Callable[[], Tensor]]:
        """Without a tail: what gives the pixels [B, 3, t, H, W] of the next t frames, in order."""

    def encoded(self, pixels_BCTHW: Tensor) -> Tensor:
        """Latents of this band's pixels in [-1, 1]: the mode of the posterior."""

    def image_condition(self, pixels_BCTHW: Tensor, place: Place) -> Mapping[str, Tensor]:
        """What a first frame [B, 3, 1, H, W] adds to both halves' tensors, for this band."""


def linear_guided(positive: Tensor, negative: Tensor, scale: float) -> Tensor:
    """negative + scale (positive - negative): the same for x0, velocity and noise."""
    return negative + scale * (positive - negative)


def find(model: str, revision: str | None = None, variant: str | None = None) -> Path:
    """The folder of a model: the shipped demo, a path, or a hub id at a revision."""
    if model == "demo":
        return Path(__file__).parent / "demo" / "checkpoint"
    folder = Path(os.path.expanduser(model))
    if os.path.isdir(folder):
        return folder
    if os.path.exists(folder):
        raise ModelError(f"model {model!r} is a file; a folder in diffusers layout works")
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise ModelError(
            f"no model folder at {model!r}; 'demo' is the model that ships with Frieze"
        )
    return hub.snapshot(model, revision, variant)


def describe(model: str, revision: str | None = None, variant: str | None = None) -> ModelFacts:
    """Facts of a model by name; raises `ModelError` when no family can serve it safely."""
    folder = find(model, revision, variant)
    index = index_of(folder)
    pipeline = index.pipeline
    check_parts(folder, index)
    served: dict[str, str] = {}
    for name in family_names():
        served |= dict.fromkeys(load_family(name).pipelines, name)
    if pipeline not in served:
        known = ", ".join(sorted(served))
        raise ModelError(f"{folder} holds a {pipeline or 'nameless'} model; Frieze knows {known}")
    check_sizes(folder)
    facts = load_family(served[pipeline]).describe(folder)
    assert isinstance(facts, ModelFacts)
    if facts.training_size < facts.latent.unit:
        raise ModelError(
            f"{folder} was trained at {facts.training_size} pixels, by its configs, which is less "
            f"than the {facts.latent.unit} of one patch; fetch the model anew"
        )
    return facts


def family_names() -> tuple[str, ...]:
    """The families in the folder."""
    return plugins.names("families")


def load_family(name: str) -> ModuleType:
    """The module of a family."""
    return plugins.load("families", name)


def weight_bytes(folder: Path, component: str) -> int:
    """Bytes of a component's weights on disk; raises `ModelError` where it has none."""
    files = sorted((folder / component).glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder / component} holds no .safetensors; fetch the model anew")
    for file in files:
        check_weights(file)
    return sum(file.stat().st_size for file in files)


def check_weights(file: Path) -> None:
    """Read a weight file's header, which says how long it must be; raises `ModelError`."""
    if (why := fault(file)) is not None:
        raise ModelError(f"{why}; fetch the model anew")
    try:
        with safe_open(file, framework="numpy") as opened:
            opened.keys()
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} is corrupt ({error}); fetch the model anew") from None
