"""The Qwen-Image family: a double-stream MM-DiT whose positions count from the centre.

Latents are [B, 16, 1, H, W]; a token packs 2 x 2 of them. Rows and columns of the canvas lie around
0, and text token n lies at m + n on all three axes, m being half the canvas' longer side. No
forward body is copied: the transformer's rotary table is replaced by one that takes angles.
Shape suffixes: B batch, C channels, T frames (1), H W latent rows and columns, S image tokens,
L text tokens, E features, A angles, h w token rows and columns, p rows or columns of a patch.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..autoencoders.video_vae import CausalVAE
from ..checkpoints.configs import Count, Heads, Size, Small, VideoVae, hints, read
from ..checkpoints.facts import Cost, GuidanceFacts, LatentSpec, ModelFacts
from ..checkpoints.scheduler_config import read_schedule
from ..checkpoints.weight_files import weight_bytes
from ..errors import ModelError
from ..models.family import BandPlace, Conditioning, Guidance, linear_guided
from ..models.positions import RotaryAxis
from ..sampling.noise_levels import NoiseLevel, x0_from

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from frieze.cluster.attention import Context
    from frieze.cluster.bands import BlockRun, Marks

    from ..spec.render_spec import RenderSpec

pipelines = ("QwenImagePipeline",)
training_sizes = (1328,)  # pixels a side, unless a checkpoint says otherwise
THETA = 10000.0
# Of the networks that edit, draw in layers, or would be told a guidance scale.
FOREIGN = ("zero_cond_t", "use_additional_t_cond", "use_layer3d_rope", "guidance_embeds")


class Transformer(Heads):
    """transformer/config.json."""

    patch_size: Small
    num_layers: Count
    joint_attention_dim: Size
    zero_cond_t: bool | None = None
    use_additional_t_cond: bool | None = None
    use_layer3d_rope: bool | None = None
    guidance_embeds: bool | None = None


def describe(folder: Path) -> ModelFacts:
    """Facts from the folder's JSON files; raises `ModelError` that names what is missing."""
    transformer = read(Transformer, folder / "transformer" / "config.json")
    vae = read(VideoVae, folder / "vae" / "config.json")
    told = hints(folder)
    for option in FOREIGN:
        if getattr(transformer, option):
            raise ModelError(
                f"{folder / 'transformer'} has {option}, which QwenImagePipeline cannot serve; "
                "a text-to-image model as Qwen/Qwen-Image works"
            )
    return ModelFacts(
        family="qwen",
        folder=str(folder),
        pipeline="QwenImagePipeline",
        latent=LatentSpec(
            channels=vae.z_dim,
            downscale=vae.downscale,
            patch=transformer.patch_size,
        ),
        num_blocks=transformer.num_layers,
        schedule=read_schedule(folder, explicit_sigmas=True),
        training_size=told.training_size or training_sizes[0],
        max_sequence_length=told.max_sequence_length or 512,
        cost=Cost(
            hidden=transformer.hidden,
            num_layers=transformer.num_layers,
            weight_bytes={
                part: weight_bytes(folder, part) for part in ("transformer", "vae", "text_encoder")
            },
            decoder_channels=vae.base_dim,
        ),
        guidance=GuidanceFacts(cfg="true_cfg_scale", defaults={"true_cfg_scale": 4.0}),
    )


def encode(
    facts: ModelFacts,
    spec: RenderSpec,
    device: torch.device,
    halves: int,
    image: np.ndarray | None = None,
) -> Conditioning:
    """The prompts through Qwen2.5-VL, in the pipeline's template, which is then cut off."""
    from diffusers import QwenImagePipeline

    from ..models import loading

    pipeline = loading.text_pipeline(QwenImagePipeline, facts, spec).to(device)
    length = spec.max_sequence_length or facts.max_sequence_length
    # Else it cuts what the encoder made, which looks back only: the same, but nobody could tell.
    pipeline.tokenizer_max_length = length

    def encoded(prompt: str) -> Mapping[str, Tensor]:
        # One prompt at its own length: the mask has no gaps, and the pipeline drops it.
        embeds_BLE, _ = pipeline.encode_prompt(prompt, device=device, max_sequence_length=length)
        return {"embeds": embeds_BLE}

    prompts = (spec.prompt, spec.negative_prompt or "")
    return Conditioning(tuple(encoded(prompt) for prompt in prompts[:halves]))


def text_shapes(facts: ModelFacts, spec: RenderSpec) -> Mapping[str, tuple[int, ...]]:
    """Shapes of what `encode` gives for one prompt, if that is as long as it may be."""
    config = read(Transformer, Path(facts.folder) / "transformer" / "config.json")
    length = spec.max_sequence_length or facts.max_sequence_length
    return {"embeds": (1, length, config.joint_attention_dim)}


def load(facts: ModelFacts, spec: RenderSpec, device: torch.device) -> Qwen:
    """The transformer and the autoencoder on one device."""
    from diffusers import AutoencoderKLQwenImage, QwenImagePipeline, QwenImageTransformer2DModel

    from ..models import loading

    transformer = loading.component(
        QwenImageTransformer2DModel, facts, "transformer", spec, denoiser=True
    )
    loading.add_loras(transformer, QwenImagePipeline, facts, spec)
    vae = loading.component(AutoencoderKLQwenImage, facts, "vae", spec)
    return Qwen(facts, transformer.to(device).eval(), vae.to(device).eval())


class Qwen(CausalVAE):
    """A loaded Qwen-Image checkpoint."""

    def __init__(self, facts: ModelFacts, transformer: Any, vae: Any) -> None:
        from frieze.cluster.bands import BlockRun, mark

        from ..models.rotary import TurnRope

        super().__init__(vae)
        self.facts = facts
        self.dims = tuple(transformer.config.axes_dims_rope)
        transformer.pos_embed = TurnRope()
        self.transformer = transformer
        self.embedders = (transformer.img_in,)
        # Rank threads share this object; each has its own number of text tokens at hand.
        self._thread = threading.local()
        self._run = BlockRun(transformer, ("transformer_blocks",))
        self._marks = (mark(transformer, lambda name, _: name.endswith(".attn"), self._context),)

    def _context(self, *_: object) -> Context:
        from frieze.cluster.attention import Context

        num_tokens, place = self._thread.text
        return Context(num_tokens, "front", place.texts, place.regions)

    def denoiser_marks(self, level: NoiseLevel) -> Sequence[Marks]:
        """Joint attention of every block."""
        return self._marks

    def block_run(self, level: NoiseLevel) -> BlockRun:
        """All alike."""
        return self._run

    def denoised(
        self,
        x_BCTHW: Tensor,
        level: NoiseLevel,
        tensors: Mapping[str, Tensor],
        place: BandPlace,
        guidance: Guidance,
    ) -> Tensor:
        """x0 = x - sigma v, with v the transformer's velocity."""
        import torch

        embeds_BLE, device = tensors["embeds"], x_BCTHW.device
        self._thread.text = (embeds_BLE.shape[1], place)
        timestep = torch.tensor(level.timestep, dtype=torch.float32, device=device)
        velocity_BSE = self.transformer(
            hidden_states=pack(x_BCTHW, self.facts.latent.patch).to(embeds_BLE.dtype),
            timestep=timestep.expand(x_BCTHW.shape[0]).to(embeds_BLE.dtype) / 1000,
            encoder_hidden_states=embeds_BLE,
            # What the table of positions is given.
            img_shapes=self.angles(
                place, place.texts or (embeds_BLE.shape[1],), level.sigma, device
            ),
            return_dict=False,
        )[0]
        velocity_BCTHW = unpack(velocity_BSE.to(x_BCTHW.dtype), x_BCTHW, self.facts.latent.patch)
        return x0_from("velocity", x_BCTHW, velocity_BCTHW, level)

    def axes(self, place: BandPlace) -> tuple[RotaryAxis, ...]:
        """Rotary axes in the order of a head's channels."""
        from ..models.rotary import picture_axes

        return picture_axes(self.facts, place, self.dims, THETA)

    def guided(
        self,
        x_BCTHW: Tensor,
        level: NoiseLevel,
        positive: Tensor,
        negative: Tensor,
        guidance: Guidance,
    ) -> Tensor:
        """True classifier-free guidance, each token's velocity as long as the positive one's.

        Velocities are (x - x0) / sigma, so that lengths of x - x0 compare as theirs.
        """
        patch = self.facts.latent.patch
        combined = linear_guided(positive, negative, guidance.scale)
        step = _tokens(x_BCTHW - combined, patch)
        ratio = _lengths(_tokens(x_BCTHW - positive, patch)) / _lengths(step)
        return x_BCTHW - (step * ratio).reshape(x_BCTHW.shape)

    def angles(
        self, place: BandPlace, texts: Sequence[int], sigma: float, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Rotary angles of this band's tokens [S, A] and of the texts' [L, A], float64."""
        import torch

        from ..models.rotary import band_angles

        axes = self.axes(place)
        image_SA = band_angles(place, axes, sigma, device, centred=True)
        start = max(axis.length // 2 for axis in axes)
        runs = (torch.arange(start, start + count, device=device) for count in texts)
        position_L = torch.cat(list(runs))
        text_LA = torch.cat([place.positions(axis, position_L, sigma) for axis in axes], dim=1)
        return image_SA, text_LA


def _tokens(x_BCTHW: Tensor, patch: int) -> Tensor:
    """[B, C, T, h, p, w, p]."""
    return x_BCTHW.unflatten(4, (-1, patch)).unflatten(3, (-1, patch))


def _lengths(x_BCThpwp: Tensor) -> Tensor:
    """Euclidean length of each token, its dims kept."""
    import torch

    return torch.linalg.vector_norm(x_BCThpwp, dim=(1, 4, 6), keepdim=True)


def pack(x_BCTHW: Tensor, patch: int) -> Tensor:
    """Latents to tokens of patch x patch cells, row by row: [B, S, C * patch^2]."""
    return _tokens(x_BCTHW, patch).permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(1, 3)


def unpack(x_BSE: Tensor, like_BCTHW: Tensor, patch: int) -> Tensor:
    """The inverse of `pack`, for latents of that shape."""
    _, channels, frames, rows, columns = like_BCTHW.shape
    grid = (-1, frames, rows // patch, columns // patch, channels, patch, patch)
    return x_BSE.reshape(grid).permute(0, 4, 1, 2, 5, 3, 6).reshape(like_BCTHW.shape)
