"""The Stable Diffusion UNets: 1.5, 2.1, SDXL and its distilled Turbo, and the shipped demo-unet.

Those that inpaint are told a mask and the latents of what is around it as further channels.

Latents are [B, 4, 1, H, W]. Bands are cut at multiples of the network's coarsest stride, so that
its downsamplers and upsamplers meet at the same rows on every rank. No forward body is copied.
Shape suffixes: B batch, C channels, T frames (1), H W latent rows and columns, L text tokens,
E features.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ..autoencoders.picture_vae import PictureVAE, around_mask
from ..checkpoints.configs import Config, PictureVae, Size, Sizes, Upcast, hints, index_of, read
from ..checkpoints.facts import Cost, GuidanceFacts, LatentSpec, ModelFacts
from ..checkpoints.scheduler_config import read_schedule
from ..checkpoints.weight_files import weight_bytes
from ..controlnets.parts import loaded, marks_of_each, of_each
from ..controlnets.unet import UNetControl, added
from ..errors import ModelError
from ..models.family import BandPlace, Conditioning, Guidance, linear_guided
from ..models.positions import RotaryAxis
from ..sampling.noise_levels import NoiseLevel, x0_from

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from frieze.cluster.attention import Context
    from frieze.cluster.bands import Marks

    from ..spec.render_spec import RenderSpec

PLAIN, XL = "StableDiffusionPipeline", "StableDiffusionXLPipeline"
INPAINT, XL_INPAINT = "StableDiffusionInpaintPipeline", "StableDiffusionXLInpaintPipeline"
pipelines = (PLAIN, XL, INPAINT, XL_INPAINT)
# What pipelines set in old schedulers' configs, for they were published without.
MENDED = {PLAIN: {"steps_offset": 1, "clip_sample": False}, INPAINT: {"steps_offset": 1}}
# CLIP reads so many tokens, no more and no fewer.
NUM_TOKENS = 77
Cells = Annotated[int, Field(ge=1, le=4096)]


class Unet(Config):
    """unet/config.json."""

    block_out_channels: Sizes
    down_block_types: Annotated[list[str], Field(max_length=16)] = Field(
        default=["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
    )
    layers_per_block: Size | Sizes = 2
    cross_attention_dim: Size
    in_channels: Size | None = None
    addition_embed_type: str | None = None
    class_embed_type: str | None = None
    time_cond_proj_dim: Size | None = None
    sample_size: Cells | Annotated[list[Cells], Field(min_length=1, max_length=2)] | None = None

    @property
    def attentions(self) -> tuple[int, ...]:
        """Blocks that attend at each level on the way down."""
        layers, kinds = self.layers_per_block, self.down_block_types
        counts = [layers] * len(kinds) if isinstance(layers, int) else layers
        each = zip(kinds, counts, strict=False)
        return tuple(count if "CrossAttn" in kind else 0 for kind, count in each)

    @property
    def trained_cells(self) -> int:
        """Latent cells on a side of the pictures that the network was trained with."""
        size = self.sample_size or 64
        return size if isinstance(size, int) else max(size)


class Added(Config):
    """What SDXL's unet/config.json says of its micro-conditioning."""

    projection_class_embeddings_input_dim: Size
    addition_time_embed_dim: Size


def describe(folder: Path) -> ModelFacts:
    """Facts from the folder's JSON files; raises `ModelError` for a UNet asked in another way."""
    pipeline = index_of(folder).pipeline
    unet = read(Unet, folder / "unet" / "config.json")
    vae = read(PictureVae, folder / "vae" / "config.json")
    _check(folder, pipeline, unet, vae)
    channels, downscale = unet.block_out_channels, vae.downscale
    encoders = ("text_encoder", "text_encoder_2") if _is_xl(pipeline) else ("text_encoder",)
    known = hints(folder)
    usual = 5.0 if pipeline == XL else 7.5
    scale = usual if known.guidance_scale is None else known.guidance_scale
    schedule = read_schedule(folder, fixed=MENDED.get(pipeline))
    return ModelFacts(
        family="unet",
        folder=str(folder),
        pipeline=pipeline,
        latent=LatentSpec(
            channels=vae.latent_channels, downscale=downscale, patch=2 ** (len(channels) - 1)
        ),
        schedule=schedule,
        training_size=known.training_size or unet.trained_cells * downscale,
        max_sequence_length=NUM_TOKENS,
        fixed_sequence_length=True,
        cost=Cost(
            hidden=channels[-1],
            num_layers=2 * len(channels) + 1,
            weight_bytes={part: weight_bytes(folder, part) for part in ("unet", "vae", *encoders)},
            decoder_channels=vae.decoder_channels,
        ),
        rotary=False,
        attentions=unet.attentions,
        inpaints=unet.in_channels == _shown(vae),
        few_steps=schedule.options.get("timestep_spacing") == "trailing",
        guidance=GuidanceFacts(cfg="guidance_scale", defaults={"guidance_scale": scale}),
    )


def _is_xl(pipeline: str) -> bool:
    return pipeline in (XL, XL_INPAINT)


def _shown(vae: PictureVae) -> int:
    """Channels that a network which inpaints takes: latents, a mask, and latents around it."""
    return 2 * vae.latent_channels + 1


def _check(folder: Path, pipeline: str, unet: Unet, vae: PictureVae) -> None:
    path, added = folder / "unet" / "config.json", "text_time" if _is_xl(pipeline) else None
    inpaints = pipeline in (INPAINT, XL_INPAINT) and unet.in_channels == _shown(vae)
    known = {
        "in_channels": unet.in_channels if inpaints else vae.latent_channels,
        "addition_embed_type": added,
        "class_embed_type": None,
        "time_cond_proj_dim": None,
    }
    for option, value in known.items():
        if getattr(unet, option) != value:
            given = getattr(unet, option)
            raise ModelError(f"{path}: {option} is {given!r}; Frieze knows {value!r}")
    path = folder / "vae" / "config.json"
    if vae.latents_mean is not None:
        raise ModelError(f"{path}: latents_mean is set; Frieze knows plain scaling_factor")


def encode(
    facts: ModelFacts,
    spec: RenderSpec,
    device: torch.device,
    halves: int,
    image: np.ndarray | None = None,
) -> Conditioning:
    """The prompts through one or two CLIPs; SDXL takes zeros for a negative prompt not given."""
    from ..models import loading

    options: dict[str, Any] = {
        "device": device,
        "num_images_per_prompt": 1,
        "do_classifier_free_guidance": halves == 2,
        "negative_prompt": spec.negative_prompt,
    }
    pipeline = loading.text_pipeline(_pipeline_class(facts), facts, spec).to(device)
    encoded = pipeline.encode_prompt(spec.prompt, **options)
    names = ("embeds", "pooled") if _is_xl(facts.pipeline) else ("embeds",)
    # (positive, negative), and of SDXL the same again pooled.
    return Conditioning(
        tuple(dict(zip(names, encoded[half::2], strict=True)) for half in range(halves))
    )


def text_shapes(facts: ModelFacts, spec: RenderSpec) -> Mapping[str, tuple[int, ...]]:
    """Shapes of what `encode` gives for one prompt."""
    path = Path(facts.folder) / "unet" / "config.json"
    unet = read(Unet, path)
    shapes: dict[str, tuple[int, ...]] = {"embeds": (1, NUM_TOKENS, unet.cross_attention_dim)}
    if _is_xl(facts.pipeline):
        num_ids = 6  # each embedded in as many features, beside the pooled text
        added = read(Added, path)
        features = added.projection_class_embeddings_input_dim
        shapes["pooled"] = (1, features - num_ids * added.addition_time_embed_dim)
    return shapes


def load(facts: ModelFacts, spec: RenderSpec, device: torch.device) -> UNet:
    """The UNet and the VAE on one device."""
    from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel

    from ..models import loading

    unet = loading.component(UNet2DConditionModel, facts, "unet", spec, denoiser=True)
    loading.add_loras(unet, _pipeline_class(facts), facts, spec)
    vae = loading.component(AutoencoderKL, facts, "vae", spec, dtype=_vae_dtype(facts, spec))
    controls = loaded(facts, spec, ControlNetModel, device, UNetControl)
    return UNet(facts, unet.to(device).eval(), vae.to(device).eval(), controls)


def _pipeline_class(facts: ModelFacts) -> type:
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    kind: type = StableDiffusionXLPipeline if _is_xl(facts.pipeline) else StableDiffusionPipeline
    return kind


def _vae_dtype(facts: ModelFacts, spec: RenderSpec) -> torch.dtype:
    """SDXL's autoencoder overflows in half precision, unless its config says that it was mended."""
    import torch

    from ..models import loading

    vae = read(Upcast, Path(facts.folder) / "vae" / "config.json")
    overflows = _is_xl(facts.pipeline) and vae.force_upcast is not False
    return torch.float32 if overflows else loading.vae_dtype(facts, spec)


class UNet(PictureVAE):
    """A loaded Stable Diffusion 1, 2 or XL."""

    def __init__(
        self, facts: ModelFacts, unet: Any, vae: Any, controls: Sequence[UNetControl] = ()
    ) -> None:
        from frieze.cluster.bands import mark

        super().__init__(vae)
        self.facts = facts
        self.unet = unet
        self._controls = controls
        self.control_marks = marks_of_each(controls, self._context)
        # Rank threads share this object; each has its own place on the canvas.
        self._thread = threading.local()
        # Every rank holds all the text, which may have as many tokens as a band.
        self._marks = (
            mark(unet, lambda name, _: name.endswith(".attn1")),
            mark(unet, lambda name, _: name.endswith(".attn2"), self._context, local=True),
        )

    def denoiser_marks(self, level: NoiseLevel) -> Sequence[Marks]:
        """The self-attentions, and the ones that ask the text."""
        return self._marks

    def denoised(
        self,
        x_BCTHW: Tensor,
        level: NoiseLevel,
        tensors: Mapping[str, Tensor],
        place: BandPlace,
        guidance: Guidance,
    ) -> Tensor:
        """x0 from what this checkpoint predicts: the noise, a velocity or x0 itself."""
        import torch

        self._thread.place = place
        embeds_BLE, device = tensors["embeds"], x_BCTHW.device
        x_BCHW = x_BCTHW.squeeze(2).to(embeds_BLE.dtype)
        timestep = torch.tensor(level.timestep, dtype=torch.float32, device=device)
        told = {
            "encoder_hidden_states": embeds_BLE,
            "added_cond_kwargs": self._added(tensors, place),
        }
        down, middle = None, None
        if "control" in tensors:
            if "control_latents" in tensors:
                x = tensors["control_latents"].squeeze(2).to(x_BCHW.dtype)
                down, middle = self._reduced(x, timestep, tensors, guidance, told, place)
            else:
                down, middle = self._features(x_BCHW, timestep, tensors, guidance, told)
        shown_BCHW = x_BCHW
        if "around" in tensors:
            known = (tensors[name].squeeze(2).to(x_BCHW.dtype) for name in ("drawn", "around"))
            shown_BCHW = torch.cat([x_BCHW, *known], dim=1)
        output_BCHW = self.unet(
            shown_BCHW,
            timestep,
            **told,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]
        output_BCTHW = output_BCHW.to(x_BCTHW.dtype).unsqueeze(2)
        return x0_from(self.facts.schedule.prediction, x_BCTHW, output_BCTHW, level)

    def _features(
        self,
        x_BCHW: Tensor,
        timestep: Tensor,
        tensors: Mapping[str, Tensor],
        guidance: Guidance,
        told: Mapping[str, Any],
    ) -> tuple[list[Tensor], Tensor]:
        """What ControlNets add that count in this step."""
        hows, pictures = guidance.controls, tensors["control"].split(3, dim=1)
        each = (of_each(values, len(hows)) for values in (self._controls, pictures, hows))
        return added(
            [
                control.features(x_BCHW, timestep, picture, how, told)
                for control, picture, how in zip(*each, strict=True)
                if how.scale
            ]
        )

    def _reduced(
        self,
        x_BCHW: Tensor,
        timestep: Tensor,
        tensors: Mapping[str, Tensor],
        guidance: Guidance,
        told: Mapping[str, Any],
        place: BandPlace,
    ) -> tuple[list[Tensor], Tensor]:
        """ControlNets' features from the whole of a smaller map, which is no band."""
        from frieze.cluster.bands import current_shape, off_bands

        from ..controlnets.reduced import enlarged

        with off_bands():
            down, middle = self._features(x_BCHW, timestep, tensors, guidance, told)
            return enlarged(down, middle, self.unet, place, current_shape())

    def inpaint_condition(self, pixels_BCTHW: Tensor) -> Mapping[str, Tensor]:
        """Which cells are drawn, by their first pixel, and latents of the picture around them."""
        drawn, around = around_mask(pixels_BCTHW)
        step = self.facts.latent.downscale
        return {"drawn": drawn[..., ::step, ::step], "around": self.encoded(around)}

    def _context(self, *_: object) -> Context:
        """The text that a layer asks; none of it is joined to the image's tokens."""
        from frieze.cluster.attention import Context

        place = self._thread.place
        return Context(sum(place.texts), "rear", place.texts, place.regions)

    def _added(
        self, tensors: Mapping[str, Tensor], place: BandPlace
    ) -> Mapping[str, Tensor] | None:
        """SDXL's micro-conditioning: a picture of a canvas' size, nothing cut off.

        Original size, left and top crop, and target size in pixels (arXiv 2307.01952, section 2.2).
        Float32, for float16 ends at 65504.
        """
        import torch

        if not _is_xl(self.facts.pipeline):
            return None
        pooled_BE, downscale = tensors["pooled"], self.facts.latent.downscale
        canvas = place.told or place.drawn
        size = [canvas.height * downscale, canvas.width * downscale]
        ids = torch.tensor([*size, 0, 0, *size], dtype=torch.float32, device=pooled_BE.device)
        return {"text_embeds": pooled_BE, "time_ids": ids.expand(pooled_BE.shape[0], -1)}

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
