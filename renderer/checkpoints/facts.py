"""What is known of a checkpoint without loading it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..sampling.noise_levels import NoiseSchedule


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

    `training_size` is pixels, `training_frames` frames; `square`: no other shape is known;
    `long_side`: of how many training sizes the longest side is that positions are known for.
    `takes_image`: it animates a first frame, and without one if that is `image_optional`.
    `num_experts`: networks that take turns. `rotary`: its positions are angles. `float32_noise`:
    its pipeline draws noise in float32 whatever the weights' precision. `fixed_sequence_length`:
    its encoders read so many tokens, no more and no fewer. `attentions`: of a U-Net, how many
    blocks attend at each level on the way down, from the largest map on. `num_blocks`: of a
    transformer whose blocks run one after the other, how many (`Model.block_run`).
    `inpaints`: its network is told which part of a picture it draws, and what is around.
    `few_steps`: its own scheduler begins at the last timestep, as those of distilled networks do.
    """

    family: str
    folder: str
    pipeline: str
    latent: LatentSpec
    schedule: NoiseSchedule
    training_size: int
    max_sequence_length: int
    cost: Cost
    guidance: GuidanceFacts = GuidanceFacts()
    video: bool = False
    takes_image: bool = False
    image_optional: bool = False
    rotary: bool = True
    square: bool = False
    long_side: float = 1.0
    num_experts: int = 1
    float32_noise: bool = False
    fixed_sequence_length: bool = False
    training_frames: int = 1
    attentions: tuple[int, ...] = ()
    num_blocks: int = 0
    inpaints: bool = False
    few_steps: bool = False

    @property
    def training_tokens(self) -> int:
        """Image tokens at the training size."""
        side = self.training_size // self.latent.unit
        return side**2 * self.latent.frames(self.training_frames)
