"""The FLUX.1 family (dev, schnell, Krea, and the shipped demo): an MM-DiT with 2-D RoPE.

Latents are [B, 16, H, W]; a token packs 2 x 2 of them; ids are (0, row, column). No forward body
is copied: the transformer's rotary table is replaced by one that takes angles, and the rest of
the model is diffusers' own.
Shape suffixes: B batch, C channels, H W latent rows and columns, S tokens, E features, F angles.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from frieze.cluster.attention import Context
from frieze.cluster.bands import Marks, mark

from ..errors import ModelError
from ..family import (
    Conditioning,
    Cost,
    FlowSchedule,
    LatentSpec,
    ModelFacts,
    Place,
    Tail,
    read_json,
    weight_bytes,
)
from ..method import Axis

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FluxTransformer2DModel

    from ..spec import RenderSpec

pipelines = ("FluxPipeline",)
THETA = 10000.0


def describe(folder: Path) -> ModelFacts:
    """Facts from the folder's JSON files; raises `ModelError` that names what is missing."""
    transformer = read_json(folder / "transformer" / "config.json")
    vae = read_json(folder / "vae" / "config.json")
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    hints = read_json(folder / "frieze.json") if (folder / "frieze.json").is_file() else {}
    parts = ("transformer", "vae", "text_encoder", "text_encoder_2")
    return ModelFacts(
        family="flux",
        folder=str(folder),
        latent=LatentSpec(
            channels=vae["latent_channels"],
            downscale=2 ** (len(vae["block_out_channels"]) - 1),
            patch=2,
        ),
        schedule=FlowSchedule(
            shift=scheduler.get("shift", 1.0),
            dynamic=scheduler.get("use_dynamic_shifting", False),
            base_shift=scheduler.get("base_shift", 0.5),
            max_shift=scheduler.get("max_shift", 1.15),
            base_tokens=scheduler.get("base_image_seq_len", 256),
            max_tokens=scheduler.get("max_image_seq_len", 4096),
        ),
        training_size=hints.get("training_size", 1024),
        max_sequence_length=hints.get("max_sequence_length", 512),
        cost=Cost(
            hidden=transformer["num_attention_heads"] * transformer["attention_head_dim"],
            num_layers=transformer["num_layers"] + transformer["num_single_layers"],
            weight_bytes={part: weight_bytes(folder, part) for part in parts},
            decoder_channels=vae["block_out_channels"][0],
        ),
        embeds_guidance=transformer.get("guidance_embeds", False),
    )


def encode(facts: ModelFacts, spec: RenderSpec, device: torch.device) -> Conditioning:
    """The prompt through CLIP and T5, loaded for this call only and then let go."""
    from diffusers import FluxPipeline

    pipeline = _loaded(
        FluxPipeline, facts, "", transformer=None, vae=None, dtype=_dtype(spec.dtype)
    )
    pipeline.to(device)
    length = spec.max_sequence_length or facts.max_sequence_length
    embeds, pooled, _ = pipeline.encode_prompt(
        spec.prompt, prompt_2=None, device=device, max_sequence_length=length
    )
    return Conditioning({"embeds": embeds, "pooled": pooled})


def load(facts: ModelFacts, dtype: str, device: torch.device) -> Flux:
    """The transformer and the VAE on one device."""
    from diffusers import AutoencoderKL, FluxTransformer2DModel

    kind = _dtype(dtype)
    transformer = _loaded(FluxTransformer2DModel, facts, "transformer", dtype=kind)
    vae = _loaded(AutoencoderKL, facts, "vae", dtype=kind)
    return Flux(facts, transformer.to(device).eval(), vae.to(device).eval())


class AngleRope(nn.Module):
    """diffusers' rotary table for given angles: (cos, sin), each angle twice, float32."""

    def forward(self, angle_SF: Tensor) -> tuple[Tensor, Tensor]:
        cos_SF, sin_SF = angle_SF.cos().float(), angle_SF.sin().float()
        return cos_SF.repeat_interleave(2, dim=1), sin_SF.repeat_interleave(2, dim=1)


class Flux:
    """A loaded FLUX-layout checkpoint."""

    def __init__(
        self, facts: ModelFacts, transformer: FluxTransformer2DModel, vae: AutoencoderKL
    ) -> None:
        self.facts = facts
        self.axes_dim = tuple(transformer.pos_embed.axes_dim)
        transformer.pos_embed = AngleRope()
        self.transformer, self.vae = transformer, vae
        # Rank threads share this object; each has its own number of text tokens at hand.
        self._thread = threading.local()
        decoder = vae.decoder
        self.tail = Tail(decoder.conv_norm_out, decoder.conv_act, decoder.conv_out)
        # The tail runs row by row in decode.py, so that pixels can leave as they are made.
        decoder.conv_norm_out, decoder.conv_act, decoder.conv_out = (
            nn.Identity(),
            nn.Identity(),
            nn.Identity(),
        )
        self.denoiser_marks: Sequence[Marks] = (
            mark(transformer, lambda name, _: name.endswith(".attn"), self._context),
        )
        self.decoder_marks: Sequence[Marks] = (
            mark(vae, lambda name, _: name == "decoder.mid_block.attentions.0"),
        )
        self.encoder_marks: Sequence[Marks] = (
            mark(vae, lambda name, _: name == "encoder.mid_block.attentions.0"),
        )

    def denoised(
        self,
        x_BCHW: Tensor,
        sigma: float,
        conditioning: Conditioning,
        place: Place,
        guidance: float,
    ) -> Tensor:
        """x0 = x - sigma v, with v the transformer's velocity."""
        embeds = conditioning.tensors["embeds"]
        self._thread.num_text_tokens = embeds.shape[1]
        batch, dtype = x_BCHW.shape[0], embeds.dtype
        # The pipeline hands the timestep over as sigma * 1000 / 1000 in float32: the same bits.
        timestep = torch.tensor(sigma, dtype=torch.float32, device=x_BCHW.device) * 1000
        strength = x_BCHW.new_full((batch,), guidance, dtype=torch.float32)
        velocity_BSE = self.transformer(
            hidden_states=pack(x_BCHW).to(dtype),
            timestep=timestep.expand(batch).to(dtype) / 1000,
            guidance=strength if self.facts.embeds_guidance else None,
            pooled_projections=conditioning.tensors["pooled"],
            encoder_hidden_states=embeds,
            txt_ids=x_BCHW.new_zeros(embeds.shape[1], sum(self.axes_dim) // 2, dtype=torch.float64),
            img_ids=self.angles(place, sigma, x_BCHW.device),
            return_dict=False,
        )[0]
        return x_BCHW - sigma * unpack(velocity_BSE.to(x_BCHW.dtype), x_BCHW.shape[-2:])

    def _context(self, *_: object) -> Context:
        """Text comes first in double and single blocks alike."""
        return Context(self._thread.num_text_tokens, "front")

    def angles(self, place: Place, sigma: float, device: torch.device) -> Tensor:
        """Rotary angles of this band's tokens, float64 [S, sum of axes / 2]."""
        patch = self.facts.latent.patch
        trained = self.facts.training_size // self.facts.latent.unit
        rows = torch.arange(place.band.start // patch, place.band.stop // patch, device=device)
        columns = torch.arange(place.canvas.width // patch, device=device)
        lengths = (1, place.canvas.height // patch, place.canvas.width // patch)
        trained_lengths = (1, trained, trained)
        axes = [
            Axis(name, dim, THETA, known, length)
            for name, dim, known, length in zip(
                ("frame", "row", "column"), self.axes_dim, trained_lengths, lengths, strict=True
            )
        ]
        frame, row, column = (
            place.positions(axis, position, sigma)
            for axis, position in zip(
                axes, (torch.zeros(1, device=device), rows, columns), strict=True
            )
        )
        num_rows, num_columns = len(rows), len(columns)
        return torch.cat(
            [
                frame.expand(num_rows * num_columns, -1),
                row.repeat_interleave(num_columns, dim=0),
                column.repeat(num_rows, 1),
            ],
            dim=1,
        )

    def features(self, x_BCHW: Tensor) -> Tensor:
        """The VAE decoder up to its tail."""
        config = self.vae.config
        scaled = x_BCHW / config.scaling_factor + config.shift_factor
        output: Tensor = self.vae.decode(scaled.to(self.vae.dtype), return_dict=False)[0]
        return output

    def encoded(self, pixels_BCHW: Tensor) -> Tensor:
        """The VAE encoder's mode, scaled as the transformer knows it."""
        config = self.vae.config
        posterior = self.vae.encode(pixels_BCHW.to(self.vae.dtype)).latent_dist
        mode: Tensor = posterior.mode().to(pixels_BCHW.dtype)
        return (mode - config.shift_factor) * config.scaling_factor


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


def _dtype(name: str) -> torch.dtype:
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def _loaded(kind: type, facts: ModelFacts, subfolder: str, **options: object):  # type: ignore[no-untyped-def]
    """from_pretrained, safetensors only and from this folder only; failures become `ModelError`."""
    _quiet()
    where = Path(facts.folder) / subfolder
    try:
        return kind.from_pretrained(  # type: ignore[attr-defined]
            str(where), use_safetensors=True, local_files_only=True, **options
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{where} cannot be loaded ({reason}); fetch the model anew") from None


def _quiet() -> None:
    """The driver shows progress; the libraries' own bars and notes would tear it."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
