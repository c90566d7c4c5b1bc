"""The FLUX.2 family: klein, guided by a second prompt or distilled, and dev, told its guidance.

Latents are patches of 2 x 2 of the autoencoder's cells, [B, 4 c, 1, H, W] at 16 pixels a cell,
normalised by the statistics its batch norm recorded; each is a token. Ids are (frame, row, column,
text). No forward body is copied: the transformer's rotary table is replaced by one for angles.
Shape suffixes: B batch, C channels, T frames (1), H W latent rows and columns, S image tokens,
L text tokens, E features, A angles.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..autoencoders.patch_vae import CELLS, PatchVAE
from ..checkpoints.configs import Count, Heads, Index, PictureVae, Size, hints, index_of, read
from ..checkpoints.facts import Cost, GuidanceFacts, LatentSpec, ModelFacts
from ..checkpoints.scheduler_config import read_schedule
from ..checkpoints.weight_files import weight_bytes
from ..models.family import BandPlace, Conditioning, Guidance, linear_guided
from ..models.positions import RotaryAxis, trained
from ..sampling.noise_levels import NoiseLevel, x0_from

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from frieze.cluster.attention import Context
    from frieze.cluster.bands import BlockRun, Marks

    from ..spec.render_spec import RenderSpec

pipelines = ("Flux2KleinPipeline", "Flux2Pipeline")
training_sizes = (2048,)  # pixels a side, unless a checkpoint says otherwise


class Transformer(Heads):
    """transformer/config.json."""

    num_layers: Count
    num_single_layers: Count
    joint_attention_dim: Size
    guidance_embeds: bool = True


def describe(folder: Path) -> ModelFacts:
    """Facts from the folder's JSON files; raises `ModelError` that names what is missing."""
    index = index_of(folder)
    transformer = read(Transformer, folder / "transformer" / "config.json")
    vae = read(PictureVae, folder / "vae" / "config.json")
    told = hints(folder)
    return ModelFacts(
        family="flux2",
        folder=str(folder),
        pipeline=index.pipeline,
        latent=LatentSpec(
            channels=vae.latent_channels * CELLS**2,
            downscale=vae.downscale * CELLS,
            patch=1,
        ),
        num_blocks=transformer.num_layers + transformer.num_single_layers,
        schedule=read_schedule(folder, explicit_sigmas=True, mu="flux2"),
        # Its publisher draws up to 4 megapixels, to which the shift was fitted.
        training_size=told.training_size or training_sizes[0],
        max_sequence_length=told.max_sequence_length or 512,
        cost=Cost(
            hidden=transformer.hidden,
            num_layers=transformer.num_layers + transformer.num_single_layers,
            weight_bytes={
                part: weight_bytes(folder, part) for part in ("transformer", "vae", "text_encoder")
            },
            decoder_channels=vae.decoder_channels,
        ),
        guidance=_guidance(index, transformer),
    )


def _guidance(index: Index, transformer: Transformer) -> GuidanceFacts:
    """Dev is told a scale; klein has a second half, unless its steps are distilled."""
    dev = index.pipeline == "Flux2Pipeline"
    return GuidanceFacts(
        cfg=None if dev or index.is_distilled else "guidance_scale",
        embedded=dev and transformer.guidance_embeds,
        defaults={"guidance_scale": 4.0},
    )


def encode(
    facts: ModelFacts,
    spec: RenderSpec,
    device: torch.device,
    halves: int,
    image: np.ndarray | None = None,
) -> Conditioning:
    """The prompts through three layers of Qwen3 (klein) or Mistral 3 (dev), padded as trained."""
    import diffusers

    from ..models import loading

    kind = getattr(diffusers, facts.pipeline)
    pipeline = loading.text_pipeline(kind, facts, spec).to(device)
    length = spec.max_sequence_length or facts.max_sequence_length

    def encoded(prompt: str) -> Mapping[str, Tensor]:
        embeds_BLE, _ = pipeline.encode_prompt(prompt, device=device, max_sequence_length=length)
        return {"embeds": embeds_BLE}

    prompts = (spec.prompt, spec.negative_prompt or "")
    return Conditioning(tuple(encoded(prompt) for prompt in prompts[:halves]))


def text_shapes(facts: ModelFacts, spec: RenderSpec) -> Mapping[str, tuple[int, ...]]:
    """Shapes of what `encode` gives for one prompt."""
    config = read(Transformer, Path(facts.folder) / "transformer" / "config.json")
    length = spec.max_sequence_length or facts.max_sequence_length
    return {"embeds": (1, length, config.joint_attention_dim)}


def load(facts: ModelFacts, spec: RenderSpec, device: torch.device) -> Flux2:
    """The transformer and the VAE on one device."""
    import diffusers

    from ..models import loading

    transformer = loading.component(
        diffusers.Flux2Transformer2DModel, facts, "transformer", spec, denoiser=True
    )
    loading.add_loras(transformer, getattr(diffusers, facts.pipeline), facts, spec)
    vae = loading.component(
        diffusers.AutoencoderKLFlux2, facts, "vae", spec, dtype=loading.vae_dtype(facts, spec)
    )
    return Flux2(facts, transformer.to(device).eval(), vae.to(device).eval())


class Flux2(PatchVAE):
    """A loaded FLUX.2 checkpoint."""

    def __init__(self, facts: ModelFacts, transformer: Any, vae: Any) -> None:
        from frieze.cluster.bands import BlockRun, mark

        from ..models.rotary import AngleRope

        super().__init__(vae)
        self.facts = facts
        self.dims = tuple(transformer.config.axes_dims_rope)
        self.theta = float(transformer.config.rope_theta)
        transformer.pos_embed = AngleRope()
        self.transformer = transformer
        self.embedders = (transformer.x_embedder,)
        # Rank threads share this object; each has its own number of text tokens at hand.
        self._thread = threading.local()
        self._run = BlockRun(transformer, ("transformer_blocks", "single_transformer_blocks"))
        self._marks = (mark(transformer, lambda name, _: name.endswith(".attn"), self._context),)

    def _context(self, *_: object) -> Context:
        """Text comes first in double and single blocks alike."""
        from frieze.cluster.attention import Context

        num_tokens, place = self._thread.text
        return Context(num_tokens, "front", place.texts, place.regions)

    def denoiser_marks(self, level: NoiseLevel) -> Sequence[Marks]:
        """Joint attention of the double and single blocks."""
        return self._marks

    def block_run(self, level: NoiseLevel) -> BlockRun:
        """Double blocks, then single ones, where the text is in front."""
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

        embeds_BLE, device, batch = tensors["embeds"], x_BCTHW.device, x_BCTHW.shape[0]
        self._thread.text = (embeds_BLE.shape[1], place)
        timestep = torch.tensor(level.timestep, dtype=torch.float32, device=device)
        told = self.facts.guidance.embedded
        velocity_BSE = self.transformer(
            hidden_states=x_BCTHW.flatten(2).mT.to(embeds_BLE.dtype),
            timestep=timestep.expand(batch).to(embeds_BLE.dtype) / 1000,
            guidance=torch.full((batch,), guidance.embedded, device=device) if told else None,
            encoder_hidden_states=embeds_BLE,
            txt_ids=self._text_angles(place.texts or (embeds_BLE.shape[1],), device),
            img_ids=self._angles(place, level.sigma, device),
            return_dict=False,
        )[0]
        velocity_BCTHW = velocity_BSE.mT.to(x_BCTHW.dtype).reshape(x_BCTHW.shape)
        return x0_from("velocity", x_BCTHW, velocity_BCTHW, level)

    def axes(self, place: BandPlace) -> tuple[RotaryAxis, ...]:
        """Rotary axes in the order of a head's channels; the last is the text's, as trained."""
        from ..models.rotary import picture_axes

        text = RotaryAxis("text", self.dims[3], self.theta, 1, 1)
        return (*picture_axes(self.facts, place, self.dims, self.theta), text)

    def guided(
        self,
        x_BCTHW: Tensor,
        level: NoiseLevel,
        positive: Tensor,
        negative: Tensor,
        guidance: Guidance,
    ) -> Tensor:
        """Classifier-free guidance."""
        return linear_guided(positive, negative, guidance.scale)

    def _angles(self, place: BandPlace, sigma: float, device: torch.device) -> Tensor:
        """Rotary angles of this band's tokens, float64 [S, A]; 0 on the axis of the text."""
        import torch

        from ..models.rotary import band_angles

        image_SA = band_angles(place, self.axes(place)[:3], sigma, device)
        return torch.cat([image_SA, image_SA.new_zeros(len(image_SA), self.dims[3] // 2)], dim=1)

    def _text_angles(self, texts: Sequence[int], device: torch.device) -> Tensor:
        """Rotary angles of texts, float64 [L, A], along their own axis, as trained."""
        import torch

        axis = RotaryAxis("text", self.dims[3], self.theta, max(texts), max(texts))
        position_L = torch.cat([torch.arange(count, device=device) for count in texts])
        text_LF = trained(axis, position_L, 0.0)
        return torch.cat([text_LF.new_zeros(sum(texts), sum(self.dims[:3]) // 2), text_LF], dim=1)
