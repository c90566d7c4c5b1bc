"""The FLUX.1 family (dev, schnell, Krea, Fill, and the shipped demo): an MM-DiT with 2-D RoPE.

Latents are [B, 16, 1, H, W]; a token packs 2 x 2 of them; ids are (0, row, column). No forward
body is copied: the transformer's rotary table is replaced by one that takes angles, and the rest
of the model is diffusers' own.
Shape suffixes: B batch, C channels, T frames (1), H W latent rows and columns, S tokens,
E features, F angles.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..autoencoders.picture_vae import PictureVAE, around_mask
from ..checkpoints.configs import Count, Heads, PictureVae, Size, hints, index_of, read
from ..checkpoints.facts import Cost, GuidanceFacts, LatentSpec, ModelFacts
from ..checkpoints.scheduler_config import read_schedule
from ..checkpoints.weight_files import weight_bytes
from ..controlnets.flux import FluxControl, added
from ..controlnets.parts import loaded, marks_of_each, of_each
from ..errors import ModelError
from ..models.family import (
    CONTROL_TENSORS,
    BandPlace,
    Conditioning,
    Control,
    Guidance,
    linear_guided,
)
from ..models.positions import RotaryAxis
from ..sampling.noise_levels import NoiseLevel, x0_from

if TYPE_CHECKING:
    import numpy as np
    import torch
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from torch import Tensor

    from frieze.cluster.attention import Context
    from frieze.cluster.bands import BlockRun, Marks

    from ..spec.render_spec import RenderSpec

PLAIN, FILL = "FluxPipeline", "FluxFillPipeline"
pipelines = (PLAIN, FILL)
training_sizes = (1024,)  # pixels a side, unless a checkpoint says otherwise
THETA = 10000.0
PATCH = 2
DEFAULTS = {
    PLAIN: {"guidance_scale": 3.5, "true_cfg_scale": 1.0},
    FILL: {"guidance_scale": 30.0},
}


class Transformer(Heads):
    """transformer/config.json."""

    num_layers: Count
    num_single_layers: Count
    joint_attention_dim: Size
    pooled_projection_dim: Size
    guidance_embeds: bool = False
    in_channels: Size | None = None


def describe(folder: Path) -> ModelFacts:
    """Facts from the folder's JSON files; raises `ModelError` that names what is missing."""
    transformer = read(Transformer, folder / "transformer" / "config.json")
    vae = read(PictureVae, folder / "vae" / "config.json")
    told, pipeline = hints(folder), index_of(folder).pipeline
    _check(folder, pipeline, transformer, vae)
    parts = ("transformer", "vae", "text_encoder", "text_encoder_2")
    return ModelFacts(
        family="flux",
        folder=str(folder),
        pipeline=pipeline,
        latent=LatentSpec(
            channels=vae.latent_channels,
            downscale=vae.downscale,
            patch=PATCH,
        ),
        schedule=read_schedule(folder, explicit_sigmas=True),
        training_size=told.training_size or training_sizes[0],
        square=told.square,
        max_sequence_length=told.max_sequence_length or 512,
        cost=Cost(
            hidden=transformer.hidden,
            num_layers=transformer.num_layers + transformer.num_single_layers,
            weight_bytes={part: weight_bytes(folder, part) for part in parts},
            decoder_channels=vae.decoder_channels,
        ),
        num_blocks=transformer.num_layers + transformer.num_single_layers,
        guidance=GuidanceFacts(
            cfg=None if pipeline == FILL else "true_cfg_scale",
            embedded=transformer.guidance_embeds,
            defaults=DEFAULTS[FILL if pipeline == FILL else PLAIN],
        ),
        inpaints=pipeline == FILL,
    )


def _check(folder: Path, pipeline: str, transformer: Transformer, vae: PictureVae) -> None:
    """The network takes tokens of latents; of Fill besides those around a mask, and its pixels."""
    cells, pixels = PATCH**2, (PATCH * vae.downscale) ** 2
    wanted = vae.latent_channels * cells
    if pipeline == FILL:
        wanted = 2 * wanted + pixels
    if transformer.in_channels not in (None, wanted):
        raise ModelError(
            f"{folder / 'transformer' / 'config.json'}: in_channels is {transformer.in_channels}; "
            f"Frieze knows {wanted} of a {pipeline}"
        )


def encode(
    facts: ModelFacts,
    spec: RenderSpec,
    device: torch.device,
    halves: int,
    image: np.ndarray | None = None,
) -> Conditioning:
    """The prompts through CLIP and T5, loaded for this call only and then let go."""
    from diffusers import FluxPipeline

    from ..models import loading

    pipeline = loading.text_pipeline(FluxPipeline, facts, spec, transformer=None, vae=None)
    pipeline.to(device)
    length = spec.max_sequence_length or facts.max_sequence_length

    def encoded(prompt: str) -> Mapping[str, Tensor]:
        embeds, pooled, _ = pipeline.encode_prompt(
            prompt, prompt_2=None, device=device, max_sequence_length=length
        )
        return {"embeds": embeds, "pooled": pooled}

    prompts = (spec.prompt, spec.negative_prompt or "")
    return Conditioning(tuple(encoded(prompt) for prompt in prompts[:halves]))


def text_shapes(facts: ModelFacts, spec: RenderSpec) -> Mapping[str, tuple[int, ...]]:
    """Shapes of what `encode` gives for one prompt."""
    config = read(Transformer, Path(facts.folder) / "transformer" / "config.json")
    length = spec.max_sequence_length or facts.max_sequence_length
    return {
        "embeds": (1, length, config.joint_attention_dim),
        "pooled": (1, config.pooled_projection_dim),
    }


def load(facts: ModelFacts, spec: RenderSpec, device: torch.device) -> Flux:
    """The transformer and the VAE on one device."""
    from diffusers import (
        AutoencoderKL,
        FluxControlNetModel,
        FluxPipeline,
        FluxTransformer2DModel,
    )

    from ..models import loading

    transformer = loading.component(
        FluxTransformer2DModel, facts, "transformer", spec, denoiser=True
    )
    loading.add_loras(transformer, FluxPipeline, facts, spec)
    vae = loading.component(AutoencoderKL, facts, "vae", spec, dtype=loading.vae_dtype(facts, spec))
    controls = loaded(facts, spec, FluxControlNetModel, device, FluxControl)
    return Flux(facts, transformer.to(device).eval(), vae.to(device).eval(), controls)


class Flux(PictureVAE):
    """A loaded FLUX-layout checkpoint."""

    # Of the prompt, what a ControlNet is told for the negative half too.
    control_asks = ("embeds", "pooled")

    def __init__(
        self,
        facts: ModelFacts,
        transformer: FluxTransformer2DModel,
        vae: AutoencoderKL,
        controls: Sequence[FluxControl] = (),
    ) -> None:
        from frieze.cluster.bands import BlockRun, mark

        from ..models.rotary import AngleRope

        super().__init__(vae)
        self.facts = facts
        self.axes_dim = tuple(transformer.pos_embed.axes_dim)
        transformer.pos_embed = AngleRope()
        self.transformer = transformer
        self.embedders = (transformer.x_embedder,)
        # Rank threads share this object; each has its own number of text tokens at hand.
        self._thread = threading.local()
        self._run = BlockRun(transformer, ("transformer_blocks", "single_transformer_blocks"))
        self._marks = (mark(transformer, lambda name, _: name.endswith(".attn"), self._context),)
        self._controls = controls
        self.control_marks = marks_of_each(controls, self._control_context)
        self.control_sees = frozenset(each.sees for each in controls)

    def denoiser_marks(self, level: NoiseLevel) -> Sequence[Marks]:
        """Joint attention of the double and single blocks."""
        return self._marks

    def block_run(self, level: NoiseLevel) -> BlockRun:
        """Double blocks, then single ones, to which the text goes beside the image."""
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

        from ..models.rotary import band_angles

        x_BCHW, embeds = x_BCTHW.squeeze(2), tensors["embeds"]
        self._thread.text = (embeds.shape[1], place)
        batch, dtype, device = x_BCHW.shape[0], embeds.dtype, x_BCHW.device
        timestep = torch.tensor(level.timestep, dtype=torch.float32, device=device)
        strength = x_BCHW.new_full((batch,), guidance.embedded, dtype=torch.float32)
        token_BSE = self._tokens(x_BCHW, tensors).to(dtype)
        told = {
            "timestep": timestep.expand(batch).to(dtype) / 1000,
            "txt_ids": x_BCHW.new_zeros(
                embeds.shape[1], sum(self.axes_dim) // 2, dtype=torch.float64
            ),
            "img_ids": band_angles(place, self.axes(place), level.sigma, device),
        }
        velocity_BSE = self.transformer(
            hidden_states=token_BSE,
            guidance=strength if self.facts.guidance.embedded else None,
            pooled_projections=tensors["pooled"],
            encoder_hidden_states=embeds,
            **self._followed(token_BSE, strength, guidance.controls, tensors, told),
            **told,
            return_dict=False,
        )[0]
        velocity_BCTHW = unpack(velocity_BSE.to(x_BCTHW.dtype), x_BCHW.shape[-2:]).unsqueeze(2)
        return x0_from("velocity", x_BCTHW, velocity_BCTHW, level)

    def _tokens(self, x_BCHW: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        """What the network sees of latents; of Fill also of what is around, and of the mask."""
        import torch

        if "around" not in tensors:
            return pack(x_BCHW)
        shown = (x_BCHW, tensors["around"].squeeze(2), tensors["drawn"].squeeze(2))
        return torch.cat([pack(each) for each in shown], dim=-1)

    def _followed(
        self,
        token_BSE: Tensor,
        guidance_B: Tensor,
        controls: Sequence[Control],
        tensors: Mapping[str, Tensor],
        told: Mapping[str, Tensor],
    ) -> Mapping[str, Any]:
        """What ControlNets add, asked with the prompt alone, as the pipeline asks them."""
        channels = {"pixels": 3, "latents": self.facts.latent.channels}
        shown = {
            sees: of_each(tensors[name].split(channels[sees], dim=1), len(controls))
            for sees, name in CONTROL_TENSORS.items()
            if name in tensors
        }
        if not shown:
            return {}
        texts = {
            "encoder_hidden_states": tensors.get("control_embeds", tensors["embeds"]),
            "pooled_projections": tensors.get("control_pooled", tensors["pooled"]),
        }
        features, networks = [], of_each(self._controls, len(controls))
        for index, (control, how) in enumerate(zip(networks, controls, strict=True)):
            if how.scale:
                seen = shown[control.sees][index].squeeze(2)
                picture = pack(seen) if control.sees == "latents" else seen
                features.append(
                    control.features(token_BSE, picture, guidance_B, how, texts | dict(told))
                )
        blocks = self.transformer.config
        return added(features, blocks.num_layers, blocks.num_single_layers)

    def inpaint_condition(self, pixels_BCTHW: Tensor) -> Mapping[str, Tensor]:
        """Latents around what is drawn, and of each cell which of its pixels are."""
        from torch.nn.functional import pixel_unshuffle

        drawn, around = around_mask(pixels_BCTHW)
        cells = pixel_unshuffle(drawn.squeeze(2), self.facts.latent.downscale)
        return {"drawn": cells.unsqueeze(2), "around": self.encoded(around)}

    def axes(self, place: BandPlace) -> tuple[RotaryAxis, ...]:
        """Rotary axes in the order of a head's channels."""
        from ..models.rotary import picture_axes

        return picture_axes(self.facts, place, self.axes_dim, THETA)

    def guided(
        self,
        x_BCTHW: Tensor,
        level: NoiseLevel,
        positive: Tensor,
        negative: Tensor,
        guidance: Guidance,
    ) -> Tensor:
        """True classifier-free guidance, as the pipeline's."""
        return linear_guided(positive, negative, guidance.scale)

    def _context(self, *_: object) -> Context:
        """Text comes first in double and single blocks alike."""
        from frieze.cluster.attention import Context

        num_tokens, place = self._thread.text
        return Context(num_tokens, "front", place.texts, place.regions)

    def _control_context(self, num_tokens: int) -> Context:
        """The same in a ControlNet, where a union's kind is a token of text."""
        from frieze.cluster.attention import Context

        return Context(self._thread.text[0] + num_tokens, "front")


def pack(x_BCHW: Tensor) -> Tensor:
    """Latents to tokens of 2 x 2 cells, row by row: [B, H/2 * W/2, 4C]."""
    batch, channels, height, width = x_BCHW.shape
    x = x_BCHW.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * 4)


def unpack(x_BSE: Tensor, size: Sequence[int]) -> Tensor:
    """The inverse of `pack` for latents of `size` rows and columns."""
    batch, _, features = x_BSE.shape
    height, width = size
    x = x_BSE.reshape(batch, height // 2, width // 2, features // 4, 2, 2)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(batch, features // 4, height, width)
