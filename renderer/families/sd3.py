"""Stable Diffusion 3 and 3.5: an MM-DiT whose positions are added once, to the patches.

Latents are [B, 16, 1, H, W]; a token packs 2 x 2 of them. Positions are the centre of a square
table of sines that comes with the weights; a canvas beyond the table continues its formula. No
forward body is copied: the crop is replaced by one that knows which rows of the canvas it is for.
Shape suffixes: B batch, C channels, T frames (1), H W latent rows and columns, S tokens, L text
tokens, E features.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ..autoencoders.picture_vae import PictureVAE
from ..checkpoints.configs import (
    Count,
    Heads,
    PictureVae,
    Size,
    Small,
    hints,
    index_of,
    read,
    read_json,
)
from ..checkpoints.facts import Cost, GuidanceFacts, LatentSpec, ModelFacts
from ..checkpoints.scheduler_config import read_schedule
from ..checkpoints.weight_files import weight_bytes
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

pipelines = ("StableDiffusion3Pipeline",)
NUM_CLIP_TOKENS = 77
NUM_T5_TOKENS = 256  # unless the spec says otherwise


class Transformer(Heads):
    """transformer/config.json."""

    patch_size: Small
    sample_size: Annotated[int, Field(ge=1, le=4096)]
    pos_embed_max_size: Annotated[int, Field(ge=1, le=4096)] = 96
    num_layers: Count
    joint_attention_dim: Size
    pooled_projection_dim: Size


def describe(folder: Path) -> ModelFacts:
    """Facts from the folder's JSON files; raises `ModelError` that names what is missing."""
    transformer = read(Transformer, folder / "transformer" / "config.json")
    vae = read(PictureVae, folder / "vae" / "config.json")
    told = hints(folder)
    downscale = vae.downscale
    parts = ["transformer", "vae", "text_encoder", "text_encoder_2"]
    parts += ["text_encoder_3"] if _has_t5(folder) else []
    return ModelFacts(
        family="sd3",
        folder=str(folder),
        pipeline="StableDiffusion3Pipeline",
        latent=LatentSpec(
            channels=vae.latent_channels, downscale=downscale, patch=transformer.patch_size
        ),
        num_blocks=transformer.num_layers,
        schedule=read_schedule(folder),
        training_size=told.training_size or transformer.sample_size * downscale,
        max_sequence_length=told.max_sequence_length or 512,
        cost=Cost(
            hidden=transformer.hidden,
            num_layers=transformer.num_layers,
            weight_bytes={part: weight_bytes(folder, part) for part in parts},
            decoder_channels=vae.decoder_channels,
        ),
        rotary=False,
        guidance=GuidanceFacts(cfg="guidance_scale", defaults={"guidance_scale": 7.0}),
    )


def _has_t5(folder: Path) -> bool:
    """The largest of the three encoders may be left out, in the index or just on disk."""
    return index_of(folder).has("text_encoder_3") and (folder / "text_encoder_3").is_dir()


def encode(
    facts: ModelFacts,
    spec: RenderSpec,
    device: torch.device,
    halves: int,
    image: np.ndarray | None = None,
) -> Conditioning:
    """The prompts through two CLIPs and T5; without T5 zeros stand for its tokens.

    The network was trained with each encoder's text dropped now and then (arXiv 2403.03206).
    """
    from diffusers import StableDiffusion3Pipeline

    from ..models import loading

    folder = Path(facts.folder)
    left_out = {} if _has_t5(folder) else {"text_encoder_3": None, "tokenizer_3": None}
    pipeline = loading.text_pipeline(StableDiffusion3Pipeline, facts, spec, **left_out).to(device)
    # Of a transformer it asks how wide the zeros are.
    config = read_json(folder / "transformer" / "config.json")
    pipeline.transformer = SimpleNamespace(config=SimpleNamespace(**config))

    def encoded(prompt: str) -> Mapping[str, Tensor]:
        embeds, _, pooled, _ = pipeline.encode_prompt(
            prompt,
            prompt_2=None,
            prompt_3=None,
            device=device,
            do_classifier_free_guidance=False,
            max_sequence_length=spec.max_sequence_length or NUM_T5_TOKENS,
        )
        return {"embeds": embeds, "pooled": pooled}

    prompts = (spec.prompt, spec.negative_prompt or "")
    return Conditioning(tuple(encoded(prompt) for prompt in prompts[:halves]))


def text_shapes(facts: ModelFacts, spec: RenderSpec) -> Mapping[str, tuple[int, ...]]:
    """Shapes of what `encode` gives for one prompt."""
    config = read(Transformer, Path(facts.folder) / "transformer" / "config.json")
    length = NUM_CLIP_TOKENS + (spec.max_sequence_length or NUM_T5_TOKENS)
    return {
        "embeds": (1, length, config.joint_attention_dim),
        "pooled": (1, config.pooled_projection_dim),
    }


def load(facts: ModelFacts, spec: RenderSpec, device: torch.device) -> SD3:
    """The transformer and the VAE on one device."""
    from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline

    from ..models import loading

    transformer = loading.component(
        SD3Transformer2DModel, facts, "transformer", spec, denoiser=True
    )
    loading.add_loras(transformer, StableDiffusion3Pipeline, facts, spec)
    vae = loading.component(AutoencoderKL, facts, "vae", spec, dtype=loading.vae_dtype(facts, spec))
    return SD3(facts, transformer.to(device).eval(), vae.to(device).eval())


class SD3(PictureVAE):
    """A loaded Stable Diffusion 3 or 3.5."""

    def __init__(self, facts: ModelFacts, transformer: Any, vae: Any) -> None:
        from frieze.cluster.bands import BlockRun, mark

        from ..models.sine_positions import SineTable

        super().__init__(vae)
        self.facts = facts
        self.transformer = transformer
        self._table = SineTable(transformer.pos_embed)
        transformer.pos_embed.cropped_pos_embed = self._positions
        # Rank threads share this object; each has its own place and number of text tokens.
        self._thread = threading.local()
        self._run = BlockRun(transformer, ("transformer_blocks",))
        self._marks = [mark(transformer, lambda name, _: name.endswith(".attn"), self._context)]
        if transformer.config.dual_attention_layers:  # a second attention without the text
            self._marks.append(mark(transformer, lambda name, _: name.endswith(".attn2")))

    def denoiser_marks(self, level: NoiseLevel) -> Sequence[Marks]:
        """Joint attention of all blocks, and the picture's own of 3.5's first ones."""
        return self._marks

    def block_run(self, level: NoiseLevel) -> BlockRun:
        """All alike; the last one gives no text."""
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

        embeds_BLE = tensors["embeds"]
        self._thread.place, self._thread.num_text_tokens = place, embeds_BLE.shape[1]
        timestep = torch.tensor(level.timestep, dtype=torch.float32, device=x_BCTHW.device)
        velocity_BCHW = self.transformer(
            hidden_states=x_BCTHW.squeeze(2).to(embeds_BLE.dtype),
            timestep=timestep.expand(x_BCTHW.shape[0]),
            encoder_hidden_states=embeds_BLE,
            pooled_projections=tensors["pooled"],
            return_dict=False,
        )[0]
        velocity_BCTHW = velocity_BCHW.to(x_BCTHW.dtype).unsqueeze(2)
        return x0_from("velocity", x_BCTHW, velocity_BCTHW, level)

    def axes(self, place: BandPlace) -> tuple[RotaryAxis, ...]:
        """None: positions are not rotary."""
        return ()

    def guided(
        self,
        x_BCTHW: Tensor,
        level: NoiseLevel,
        positive: Tensor,
        negative: Tensor,
        guidance: Guidance,
    ) -> Tensor:
        """Classifier-free guidance, as the pipeline's."""
        return linear_guided(positive, negative, guidance.scale)

    def _context(self, *_: object) -> Context:
        """Text comes behind the picture."""
        from frieze.cluster.attention import Context

        place = self._thread.place
        return Context(self._thread.num_text_tokens, "rear", place.texts, place.regions)

    def _positions(self, *_: object) -> Tensor:
        """In diffusers' place: positions [1, S, E] of this band's tokens."""
        trained = self.facts.training_size // self.facts.latent.unit
        return self._table.of(self._thread.place, trained).unsqueeze(0)
