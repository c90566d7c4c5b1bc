"""The Z-Image family: image and caption tokens in one stream, both padded to multiples of 32.

Latents are [B, 16, 1, H, W]; a token packs 2 x 2 of them. Padding takes part in attention. That of
the caption has positions of its own; that of the image is one learnt token at position 0, as often
as the whole canvas asks for: every rank holds it as it holds the caption, behind its image tokens.
No forward body is copied: the transformer is given the band's tokens and angles instead of ids.
Shape suffixes: B batch, C channels, T frames (1), H W latent rows and columns, S image tokens,
L caption tokens, E features, A angles.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ..autoencoders.picture_vae import PictureVAE
from ..checkpoints.configs import Config, Count, PictureVae, Size, Small, hints, read
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

pipelines = ("ZImagePipeline",)
training_sizes = (2048,)  # pixels a side, unless a checkpoint says otherwise
# The network was trained with sequences of this many tokens, or a multiple.
MULTIPLE = 32


class Transformer(Config):
    """transformer/config.json."""

    all_patch_size: Annotated[list[Small], Field(min_length=1, max_length=4)]
    dim: Size
    n_layers: Count
    n_refiner_layers: Count
    cap_feat_dim: Size
    axes_lens: Annotated[list[Size], Field(max_length=8)] | None = None


def describe(folder: Path) -> ModelFacts:
    """Facts from the folder's JSON files; raises `ModelError` that names what is missing."""
    transformer = read(Transformer, folder / "transformer" / "config.json")
    vae = read(PictureVae, folder / "vae" / "config.json")
    told = hints(folder)
    return ModelFacts(
        family="zimage",
        folder=str(folder),
        pipeline="ZImagePipeline",
        latent=LatentSpec(
            channels=vae.latent_channels,
            downscale=vae.downscale,
            patch=transformer.all_patch_size[0],
        ),
        num_blocks=transformer.n_layers,
        schedule=read_schedule(folder, explicit_sigmas=True),
        # Its publisher draws up to 2048 x 2048 pixels with one shift.
        training_size=told.training_size or training_sizes[0],
        max_sequence_length=told.max_sequence_length or 512,
        cost=Cost(
            hidden=transformer.dim,
            num_layers=transformer.n_layers + 2 * transformer.n_refiner_layers,
            weight_bytes={
                part: weight_bytes(folder, part) for part in ("transformer", "vae", "text_encoder")
            },
            decoder_channels=vae.decoder_channels,
        ),
        guidance=GuidanceFacts(cfg="guidance_scale", defaults={"guidance_scale": 5.0}, neutral=0.0),
        float32_noise=True,
    )


def encode(
    facts: ModelFacts,
    spec: RenderSpec,
    device: torch.device,
    halves: int,
    image: np.ndarray | None = None,
) -> Conditioning:
    """The prompts through Qwen3, in its chat template, without the tokenizer's padding."""
    from diffusers import ZImagePipeline

    from ..models import loading

    pipeline = loading.text_pipeline(ZImagePipeline, facts, spec).to(device)
    length = spec.max_sequence_length or facts.max_sequence_length

    def encoded(prompt: str) -> Mapping[str, Tensor]:
        captions, _ = pipeline.encode_prompt(
            prompt, device=device, do_classifier_free_guidance=False, max_sequence_length=length
        )
        return {"embeds": captions[0].unsqueeze(0)}

    prompts = (spec.prompt, spec.negative_prompt or "")
    return Conditioning(tuple(encoded(prompt) for prompt in prompts[:halves]))


def text_shapes(facts: ModelFacts, spec: RenderSpec) -> Mapping[str, tuple[int, ...]]:
    """Shapes of what `encode` gives for one prompt, if that is as long as it may be."""
    config = read(Transformer, Path(facts.folder) / "transformer" / "config.json")
    length = spec.max_sequence_length or facts.max_sequence_length
    return {"embeds": (1, length, config.cap_feat_dim)}


def load(facts: ModelFacts, spec: RenderSpec, device: torch.device) -> ZImage:
    """The transformer and the VAE on one device."""
    from diffusers import AutoencoderKL, ZImagePipeline, ZImageTransformer2DModel

    from ..models import loading

    transformer = loading.component(
        ZImageTransformer2DModel, facts, "transformer", spec, denoiser=True
    )
    loading.add_loras(transformer, ZImagePipeline, facts, spec)
    vae = loading.component(AutoencoderKL, facts, "vae", spec, dtype=loading.vae_dtype(facts, spec))
    return ZImage(facts, transformer.to(device).eval(), vae.to(device).eval())


@dataclass(frozen=True)
class Sequences:
    """What one call of the network is made of: the image's padding and each caption's tokens."""

    place: BandPlace
    sigma: float
    num_pads: int
    captions: tuple[int, ...]

    @property
    def texts(self) -> tuple[int, ...]:
        """Tokens of each caption with its padding."""
        return tuple(map(padded, self.captions))


class ZImage(PictureVAE):
    """A loaded Z-Image checkpoint."""

    def __init__(self, facts: ModelFacts, transformer: Any, vae: Any) -> None:
        from frieze.cluster.bands import BlockRun

        from ..models.rotary import turns

        super().__init__(vae)
        self.facts = facts
        self.dims, self.theta = tuple(transformer.axes_dims), float(transformer.rope_theta)
        self.transformer = transformer
        self.embedders = tuple(transformer.all_x_embedder.values())
        transformer.rope_embedder = turns
        transformer.patchify_and_embed = self._embedded
        # Rank threads share this object; each has its own sequences at hand.
        self._thread = threading.local()
        self._run = BlockRun(transformer, ("layers",), text="rear")
        self._marks = (
            _mark(transformer, "noise_refiner", context=self._padding),
            _mark(transformer, "context_refiner", local=True, context=self._alone),
            _mark(transformer, "layers", context=self._rear),
        )

    @property
    def _sequences(self) -> Sequences:
        sequences: Sequences = self._thread.sequences
        return sequences

    def _padding(self, *_: object) -> Context:
        from frieze.cluster.attention import Context

        return Context(self._sequences.num_pads, "rear")

    def _rear(self, *_: object) -> Context:
        from frieze.cluster.attention import Context

        at = self._sequences
        return Context(at.num_pads + sum(at.texts), "rear", at.texts, at.place.regions)

    def _alone(self, *_: object) -> Context:
        from frieze.cluster.attention import Context

        at = self._sequences
        return Context(sum(at.texts), "rear", at.texts, at.place.regions, alone=True)

    def denoiser_marks(self, level: NoiseLevel) -> Sequence[Marks]:
        """The image's refiner, the caption's, which is local, and the layers of both."""
        return self._marks

    def block_run(self, level: NoiseLevel) -> BlockRun:
        """The layers of image and text together, where the text is behind."""
        return self._run

    def denoised(
        self,
        x_BCTHW: Tensor,
        level: NoiseLevel,
        tensors: Mapping[str, Tensor],
        place: BandPlace,
        guidance: Guidance,
    ) -> Tensor:
        """x0 = x - sigma v; the network gives -v, and counts time from noise to picture."""
        import torch

        latent, embeds_BLE = self.facts.latent, tensors["embeds"]
        num_tokens = place.drawn.height * place.drawn.width // latent.patch**2
        captions = place.texts or (embeds_BLE.shape[1],)
        num_pads = padded(num_tokens) - num_tokens
        self._thread.sequences = Sequences(place, level.sigma, num_pads, captions)
        timestep = torch.tensor(level.timestep, dtype=torch.float32, device=x_BCTHW.device)
        outputs = self.transformer(
            list(x_BCTHW.to(embeds_BLE.dtype)),
            ((1000 - timestep) / 1000).expand(x_BCTHW.shape[0]),
            list(embeds_BLE),
            patch_size=latent.patch,
            return_dict=False,
        )[0]
        velocity_BCTHW = -torch.stack(outputs).to(x_BCTHW.dtype)
        return x0_from("velocity", x_BCTHW, velocity_BCTHW, level)

    def axes(self, place: BandPlace) -> tuple[RotaryAxis, ...]:
        """Rotary axes in the order of a head's channels."""
        from ..models.rotary import picture_axes

        return picture_axes(self.facts, place, self.dims, self.theta)

    def guided(
        self,
        x_BCTHW: Tensor,
        level: NoiseLevel,
        positive: Tensor,
        negative: Tensor,
        guidance: Guidance,
    ) -> Tensor:
        """Classifier-free guidance; the pipeline's own scale is 1 less than the usual one here."""
        return linear_guided(positive, negative, guidance.scale)

    def _embedded(
        self, images: list[Tensor], captions: list[Tensor], patch: int, frame_patch: int
    ) -> tuple[list[Any], ...]:
        """In diffusers' place: tokens, sizes, angles and masks of padding, image and caption.

        Angles stand where it has ids, for the rotary table to turn. Collective sizes are the
        canvas': a band has as much padding behind its tokens as the whole canvas would.
        """
        import torch

        at, device = self._sequences, images[0].device
        angles, text_LA = self._angles(device)
        tokens, sizes, masks, text, text_masks = [], [], [], [], []
        for image_CTHW, caption_LE in zip(images, captions, strict=True):
            token_SE, size, _ = self.transformer._patchify_image(image_CTHW, patch, frame_patch)
            tokens.append(_lengthened(token_SE, at.num_pads))
            sizes.append(size)
            masks.append(_is_padding(len(token_SE), at.num_pads, device))
            each = caption_LE.split(list(at.captions))
            missing = [num - len(one) for num, one in zip(at.texts, each, strict=True)]
            text.append(torch.cat(list(map(_lengthened, each, missing))))
            masked = (_is_padding(len(a), n, device) for a, n in zip(each, missing, strict=True))
            text_masks.append(torch.cat(list(masked)))
        many = len(images)
        return tokens, text, sizes, [angles] * many, [text_LA] * many, masks, text_masks

    def _angles(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Angles of this band's tokens and the padding behind, and of the caption's, float64.

        The caption takes 1, 2, ... on the frame axis, and the image the position after it. Of
        several captions all end there.
        """
        import torch

        from ..models.rotary import band_angles

        at = self._sequences
        axes = self.axes(at.place)
        end = max(at.texts) + 1
        image_SA = band_angles(at.place, axes, at.sigma, device, frame=end)
        position_L = torch.cat([torch.arange(end - n, end, device=device) for n in at.texts])
        origin_L = torch.zeros_like(position_L)
        text_LA = torch.cat(
            [
                at.place.positions(axis, position, at.sigma)
                for axis, position in zip(axes, (position_L, origin_L, origin_L), strict=True)
            ],
            dim=1,
        )
        return _lengthened(image_SA, at.num_pads), text_LA


def padded(num_tokens: int) -> int:
    """The next multiple of `MULTIPLE`."""
    return -(-num_tokens // MULTIPLE) * MULTIPLE


def _lengthened(x_SE: Tensor, num_more: int) -> Tensor:
    """With rows of zeros behind: what lies there is not looked at, or is position 0."""
    import torch

    return torch.cat([x_SE, x_SE.new_zeros(num_more, x_SE.shape[1])])


def _is_padding(num_tokens: int, num_pads: int, device: torch.device) -> Tensor:
    import torch

    return torch.arange(num_tokens + num_pads, device=device) >= num_tokens


def _mark(transformer: Any, part: str, **options: Any) -> Marks:
    """The attentions of one run of blocks."""
    from frieze.cluster.bands import mark

    return mark(
        transformer,
        lambda name, _: name.startswith(f"{part}.") and name.endswith(".attention"),
        **options,
    )
