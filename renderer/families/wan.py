"""The Wan family of video models: 2.1, 2.2 with two experts, and 2.2's small TI2V model.

Latents are [B, C, T, H, W]; a token packs 1 x 2 x 2 of them; positions are (frame, row, column).
No forward body is copied: the transformer's rotary table is replaced by one that knows the band.
The autoencoder and CLIP's picture encoder run in float32 whatever the spec's dtype, as the
pipelines' own documentation loads them: the autoencoder's norms lose visible detail in less.
Shape suffixes: B batch, C channels, T frames, H W latent rows and columns, S tokens, D head dim,
F angles.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ..autoencoders.video_vae import CausalVAE
from ..checkpoints.configs import (
    Count,
    Heads,
    ImageEncoder,
    Size,
    Small,
    VideoVae,
    hints,
    index_of,
    read,
)
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
    from torch import Tensor, nn

    from frieze.cluster.attention import Context
    from frieze.cluster.bands import BlockRun, Marks

    from ..spec.render_spec import RenderSpec

pipelines = ("WanPipeline", "WanImageToVideoPipeline")
THETA = 10000.0
# Models that see the first frame tell its tokens from the text's by there being 512 of these.
NUM_TEXT = 512
# Square roots of the areas trained on, 480 x 832 and 720 x 1280, in multiples of 16.
SMALL, LARGE = training_sizes = 624, 960
# Both orientations were trained on: the known rows and columns are those of the longer side.
LONG_SIDE = 4 / 3


class Transformer(Heads):
    """transformer/config.json."""

    patch_size: Annotated[list[Small], Field(min_length=3, max_length=3)]
    num_layers: Count
    text_dim: Size
    image_dim: Size | None = None
    pos_embed_seq_len: int | None = None
    rope_max_seq_len: Size = 1024


def describe(folder: Path) -> ModelFacts:
    """Facts from the folder's JSON files; raises `ModelError` that names what is missing."""
    index = index_of(folder)
    transformer = read(Transformer, folder / "transformer" / "config.json")
    vae = read(VideoVae, folder / "vae" / "config.json")
    told = hints(folder)
    _check_network(folder, transformer)
    names = ("transformer", "transformer_2", "vae", "text_encoder", "image_encoder")
    parts = [name for name in names if index.has(name)]
    animates = index.pipeline == "WanImageToVideoPipeline"
    expands = bool(index.expand_timesteps)
    hidden = transformer.hidden
    return ModelFacts(
        family="wan",
        folder=str(folder),
        pipeline=index.pipeline,
        latent=_latent(vae, transformer),
        num_blocks=transformer.num_layers,
        schedule=read_schedule(folder),
        long_side=LONG_SIDE,
        training_size=told.training_size or (LARGE if hidden > 1536 else SMALL),
        training_frames=told.training_frames or (121 if expands else 81),
        max_sequence_length=told.max_sequence_length or NUM_TEXT,
        cost=Cost(
            hidden=hidden,
            num_layers=transformer.num_layers,
            weight_bytes={part: weight_bytes(folder, part) for part in parts},
            decoder_channels=vae.decoder_base_dim or vae.base_dim,
        ),
        guidance=GuidanceFacts(cfg="guidance_scale", defaults={"guidance_scale": 5.0}),
        video=True,
        takes_image=animates or expands,
        image_optional=expands and not animates,
        num_experts=sum(part.startswith("transformer") for part in parts),
        float32_noise=True,
    )


def _latent(vae: VideoVae, transformer: Transformer) -> LatentSpec:
    return LatentSpec(
        channels=vae.z_dim,
        downscale=vae.downscale,
        patch=transformer.patch_size[1],
        temporal=2 ** sum(vae.temperal_downsample),
    )


def _check_network(folder: Path, transformer: Transformer) -> None:
    frames, rows, columns = transformer.patch_size
    if frames != 1 or rows != columns:
        raise ModelError(f"{folder} has patches of {frames}x{rows}x{columns}; 1x2x2 works")
    if transformer.pos_embed_seq_len is not None:
        raise ModelError(
            f"{folder} animates between a first and a last frame; a model that takes the first "
            "alone works, as Wan2.1-I2V or Wan2.2-I2V"
        )


def encode(
    facts: ModelFacts,
    spec: RenderSpec,
    device: torch.device,
    halves: int,
    image: np.ndarray | None = None,
) -> Conditioning:
    """The prompts through UMT5, and a first frame [H, W, 3] in [0, 1] through CLIP (Wan 2.1)."""
    import diffusers
    import torch
    import torch.nn.functional as F
    import transformers

    from ..models import loading

    sees = read(Transformer, Path(facts.folder) / "transformer" / "config.json").image_dim
    parts: dict[str, Any] = {}
    if sees:
        parts["image_encoder"] = loading.component(
            transformers.CLIPVisionModel, facts, "image_encoder", spec, dtype=torch.float32
        )
    pipeline = loading.text_pipeline(getattr(diffusers, facts.pipeline), facts, spec, **parts)
    pipeline.to(device)
    shown: dict[str, Tensor] = {}
    if sees and image is not None:
        embeds_BSD = pipeline.encode_image(_picture(image), device)
        shown["image_embeds"] = embeds_BSD.to(loading.dtype_of(spec.dtype))
    length = spec.max_sequence_length or facts.max_sequence_length
    # The pipeline for first frames calls ftfy, which may not be there; this one does without.
    reader = diffusers.WanPipeline(
        pipeline.tokenizer, pipeline.text_encoder, None, pipeline.scheduler
    )

    def encoded(prompt: str) -> Mapping[str, Tensor]:
        embeds_BSD, _ = reader.encode_prompt(
            prompt, do_classifier_free_guidance=False, max_sequence_length=length, device=device
        )
        if sees:  # prompts are padded with zeros anyway
            embeds_BSD = F.pad(embeds_BSD, (0, 0, 0, NUM_TEXT - embeds_BSD.shape[1]))
        return {"embeds": embeds_BSD, **shown}

    prompts = (spec.prompt, spec.negative_prompt or "")
    return Conditioning(tuple(encoded(prompt) for prompt in prompts[:halves]))


def text_shapes(facts: ModelFacts, spec: RenderSpec) -> Mapping[str, tuple[int, ...]]:
    """Shapes of what `encode` gives for one prompt as long as it may be."""
    folder = Path(facts.folder)
    config = read(Transformer, folder / "transformer" / "config.json")
    length = spec.max_sequence_length or facts.max_sequence_length
    sees = config.image_dim
    if not sees:
        return {"embeds": (1, length, config.text_dim)}
    eye = read(ImageEncoder, folder / "image_encoder" / "config.json")
    num_patches = (eye.image_size // eye.patch_size) ** 2
    return {
        "embeds": (1, NUM_TEXT, config.text_dim),
        "image_embeds": (1, num_patches + 1, sees),
    }


def _picture(image_HWC: np.ndarray) -> Any:
    """The picture as Pillow has it, which is how the pipelines show it to CLIP."""
    from PIL import Image

    return Image.fromarray((image_HWC * 255).round().astype("uint8"))


def load(facts: ModelFacts, spec: RenderSpec, device: torch.device) -> Wan:
    """The transformers and the autoencoder on one device; each transformer has its own LoRAs."""
    import diffusers
    import torch

    from ..models import loading

    kind = diffusers.WanTransformer3DModel
    names = [name for name in ("transformer", "transformer_2") if name in facts.cost.weight_bytes]
    experts = [loading.component(kind, facts, name, spec, denoiser=True) for name in names]
    pipeline_class = getattr(diffusers, facts.pipeline)
    for expert in experts:
        second = expert is not experts[0]
        loading.add_loras(expert, pipeline_class, facts, spec, second=second)
    vae = loading.component(diffusers.AutoencoderKLWan, facts, "vae", spec, dtype=torch.float32)
    index = index_of(Path(facts.folder))
    experts = [expert.to(device).eval() for expert in experts]
    vae = vae.to(device).eval()
    return Wan(facts, experts, vae, index.boundary_ratio, index.expand_timesteps)


class Wan(CausalVAE):
    """A loaded Wan checkpoint.

    Of two experts the second serves timesteps below `boundary_ratio` of all. A model that
    `expands` timesteps is told one for each token, and a first frame by its latents at time 0;
    others have a first frame's latents as further channels.
    """

    def __init__(
        self,
        facts: ModelFacts,
        experts: Sequence[nn.Module],
        vae: nn.Module,
        boundary_ratio: float | None = None,
        expands: bool | None = False,
    ) -> None:
        from frieze.cluster.bands import BlockRun

        from ..models.rotary import ClipRope

        super().__init__(vae)
        self.facts = facts
        self.experts = experts
        self.embedders = tuple(expert.patch_embedding for expert in experts)
        self.expands = bool(expands)
        num_timesteps = facts.schedule.options.get("num_train_timesteps", 1000)
        self.boundary = boundary_ratio * num_timesteps if boundary_ratio is not None else 0.0
        config: Any = experts[0].config
        self.head_dim: int = config.attention_head_dim
        # Rank threads share this object; each has its own place on the canvas.
        self._thread = threading.local()
        self._runs = [BlockRun(expert, ("blocks",)) for expert in experts]
        self._marks = [_marks(expert, self._context) for expert in experts]
        for expert in experts:
            expert.rope = ClipRope(self._angles)

    def _expert(self, level: NoiseLevel) -> int:
        return 1 if level.timestep < self.boundary else 0

    def denoiser_marks(self, level: NoiseLevel) -> Sequence[Marks]:
        """Self-attention of this level's expert, and its attention to the text, which is local."""
        return self._marks[self._expert(level)]

    def block_run(self, level: NoiseLevel) -> BlockRun:
        """Those of this level's expert."""
        return self._runs[self._expert(level)]

    def denoised(
        self,
        x_BCTHW: Tensor,
        level: NoiseLevel,
        tensors: Mapping[str, Tensor],
        place: BandPlace,
        guidance: Guidance,
    ) -> Tensor:
        """x0 = x - sigma v, with v the expert's velocity; a given first frame stays as it is."""
        self._thread.place, self._thread.sigma = place, level.sigma
        embeds, image_embeds = tensors["embeds"], tensors.get("image_embeds")
        if place.texts:  # along the batch: of a first frame's model a text has no other length
            embeds = embeds.unflatten(1, (len(place.texts), -1)).flatten(0, 1)
        if image_embeds is not None:
            image_embeds = image_embeds.expand(len(embeds), -1, -1)
        shown_BCTHW = self._shown(x_BCTHW, tensors)
        velocity_BCTHW = self.experts[self._expert(level)](
            hidden_states=shown_BCTHW.to(embeds.dtype),
            timestep=self._timestep(x_BCTHW, level, "first" in tensors),
            encoder_hidden_states=embeds,
            encoder_hidden_states_image=image_embeds,
            return_dict=False,
        )[0]
        prediction = self.facts.schedule.prediction
        x0_BCTHW = x0_from(prediction, x_BCTHW, velocity_BCTHW.to(x_BCTHW.dtype), level)
        return _begun(x0_BCTHW, tensors["first"]) if "first" in tensors else x0_BCTHW

    def _shown(self, x_BCTHW: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        """What the network sees: the latents, and the first frame in its place."""
        import torch

        if "first" in tensors:
            return _begun(x_BCTHW, tensors["first"])
        if "condition" in tensors:
            return torch.cat([x_BCTHW, tensors["condition"]], dim=1)
        return x_BCTHW

    def _timestep(self, x_BCTHW: Tensor, level: NoiseLevel, begun: bool) -> Tensor:
        """[B], or one for each token [B, S], 0 for those of a given first frame."""
        import torch

        batch, _, frames, rows, columns = x_BCTHW.shape
        timestep = torch.tensor(level.timestep, dtype=torch.float32, device=x_BCTHW.device)
        if not self.expands:
            return timestep.expand(batch)
        tokens = rows * columns // self.facts.latent.patch**2
        timesteps_TS = timestep.repeat(frames, tokens)
        timesteps_TS[: int(begun)] = 0
        return timesteps_TS.flatten().expand(batch, -1)

    def guided(
        self,
        x_BCTHW: Tensor,
        level: NoiseLevel,
        positive: Tensor,
        negative: Tensor,
        guidance: Guidance,
    ) -> Tensor:
        """Classifier-free guidance, with the second expert's own scale where there is one."""
        own = guidance.scale_2 if self._expert(level) else None
        return linear_guided(positive, negative, guidance.scale if own is None else own)

    def image_condition(self, pixels_BCTHW: Tensor, place: BandPlace) -> Mapping[str, Tensor]:
        """The first frame's latents; or a clip of it and nothing else, and where it is known.

        `condition` is [1, temporal + C, T, H, W]: of each latent frame a mask of the frames that
        are given, then latents of the first frame followed by mid grey.
        """
        import torch

        if self.expands:
            return {"first": self.encoded(pixels_BCTHW)}
        batch, channels, _, height, width = pixels_BCTHW.shape
        empty = pixels_BCTHW.new_zeros(batch, channels, self.temporal, height, width)
        later = [empty] * (place.canvas.frames - 1)
        latents_BCTHW = self.encoded_groups([pixels_BCTHW, *later])
        given_BCTHW = torch.zeros_like(latents_BCTHW[:, : self.temporal])
        given_BCTHW[:, :, 0] = 1
        return {"condition": torch.cat([given_BCTHW, latents_BCTHW], dim=1)}

    def axes(self, place: BandPlace) -> tuple[RotaryAxis, ...]:
        """Rotary axes in the order of a head's channels."""
        facts, canvas, latent = self.facts, place.canvas, self.facts.latent
        side = 2 * (self.head_dim // 6)
        frames = latent.frames(facts.training_frames)
        known = round(facts.training_size * facts.long_side) // latent.unit
        return (
            RotaryAxis("frame", self.head_dim - 2 * side, THETA, frames, canvas.frames),
            RotaryAxis("row", side, THETA, known, canvas.height // latent.patch),
            RotaryAxis("column", side, THETA, known, canvas.width // latent.patch),
        )

    def _context(self, *_: object) -> Context:
        from frieze.cluster.attention import Context

        place = self._thread.place
        return Context(sum(place.texts), "rear", place.texts, place.regions)

    def _angles(self, device: torch.device) -> Sequence[Tensor]:
        """Rotary angles of the thread's frames, rows and columns, float64, each [number, F]."""
        from ..models.rotary import clip_angles

        place = self._thread.place
        return clip_angles(place, self.axes(place), self._thread.sigma, device)


def _marks(expert: nn.Module, context: Callable[..., Context]) -> Sequence[Marks]:
    """attn1 is over the canvas; attn2 asks text and picture tokens, the same on every rank."""
    from frieze.cluster.bands import mark

    return (
        mark(expert, lambda name, _: name.endswith(".attn1")),
        mark(expert, lambda name, _: name.endswith(".attn2"), context, local=True),
    )


def _begun(x_BCTHW: Tensor, first_BCTHW: Tensor) -> Tensor:
    """Latents whose first frame is given."""
    import torch

    return torch.cat([first_BCTHW.to(x_BCTHW.dtype), x_BCTHW[:, :, 1:]], dim=2)
