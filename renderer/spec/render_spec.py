"""RenderSpec: everything that says what to draw and where, as one frozen record.

The CLI's flags and a preset's keys are this record's fields and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from ..errors import SpecError, shown
from . import units
from .edits import MOST_EDITS, Edit
from .field_errors import explained
from .lora_refs import LoraText
from .place import Length, Place, PrintSize, outpainted, ranged, sized
from .roles import IN_MODEL, IN_OUTPUT, IN_PICTURE, IN_WORK, Role, RoleRecord
from .stage_spec import LEAST_SHIFT, MOST_GUIDANCE, MOST_SHIFT, Attending, StageSpec
from .step_cache import CacheText
from .values import Kind, Name, PlainOptions, Several, Share, Strength, is_text, texts

# What holds a picture that is redrawn to what it was (extrapolation/guides.py).
HeldBy = Literal["hiflow", "low-band", "detail", "none"]
NO_DECODER = "none"  # told in the place of a decoder: the autoencoder decodes
Intent = Literal["perceptual", "relative", "saturation", "absolute"]


class RenderSpec(RoleRecord):
    """What to draw, with which model, how large, and where to put it.

    Sizes are pixels, `seed` any 64-bit integer, `timeout` seconds. Arguments that diffusers'
    pipelines have carry diffusers' names. Raises `SpecError` through `parse`.
    """

    prompt: Annotated[str, Role(None)] = Field(default="", description="what the picture shows")
    negative_prompt: Annotated[str | None, IN_PICTURE] = Field(
        default=None, description="what it must not show; default: nothing"
    )
    model: Annotated[str, IN_MODEL] = Field(
        default="demo", description="'demo', 'demo-unet', a diffusers folder, or a hub id"
    )
    revision: Annotated[str | None, IN_MODEL] = Field(
        default=None, description="branch, tag or commit of a hub id; default: its main branch"
    )
    variant: Annotated[str | None, IN_MODEL] = Field(
        default=None, description="weight files' variant, as fp16; default: the plain files"
    )
    lora: Annotated[tuple[LoraText, ...], IN_MODEL] = Field(
        default=(), description="LoRA file, or FILE=WEIGHT; repeatable; default: none"
    )
    lora_2: Annotated[tuple[LoraText, ...], IN_MODEL] = Field(
        default=(), description="the same for Wan 2.2's low-noise expert; default: none"
    )
    decoder: Annotated[str | None, Role("Model", came_later=True)] = Field(
        default=None,
        min_length=1,
        description="folder of an InfGen decoder, which makes --size from a picture of the trained "
        "size; 'infgen' for the model's own, none for the autoencoder; default: none, with --place "
        "beyond the trained size and no --method the model's own",
    )
    controlnet: Annotated[Several[Name], Role("Model", came_later=True)] = Field(
        default=(), description="folder of a ControlNet; repeatable; default: none"
    )
    control: Annotated[Several[Name], Role("Picture", came_later=True)] = Field(
        default=(),
        description="picture that --controlnet follows: edges, depth, a tile; repeatable, as are "
        "numbers of it: one for all, or one for each; default: none",
    )
    controlnet_conditioning_scale: Annotated[Several[Strength], Role("Model", came_later=True)] = (
        Field(default=(1.0,), description="how strongly --control is followed; default 1")
    )
    control_guidance_start: Annotated[Several[Share], Role("Model", came_later=True)] = Field(
        default=(0.0,), description="part of a stage's steps before --control counts; default 0"
    )
    control_guidance_end: Annotated[Several[Share], Role("Model", came_later=True)] = Field(
        default=(1.0,), description="part of a stage's steps after which it does not; default 1"
    )
    control_mode: Annotated[Several[Kind], Role("Model", came_later=True)] = Field(
        default=(),
        description="kind that a union ControlNet follows; none: it is no union; default: none",
    )
    guess_mode: Annotated[bool, Role("Model", came_later=True)] = Field(
        default=False, description="a U-Net's --control counts where the prompt does; default: off"
    )
    quantization: Annotated[str | None, IN_MODEL] = Field(
        default=None,
        description="quantise the denoiser's weights while loading; default: as they are",
    )
    storage_dtype: Annotated[Literal["float8_e4m3fn", "float8_e5m2"] | None, IN_MODEL] = Field(
        default=None,
        description="keep the denoiser's weights so, cast layer by layer; default: as --dtype",
    )
    height: Annotated[int, IN_PICTURE] = Field(
        default=1024, ge=units.LEAST_PIXELS, le=units.MOST_PIXELS, description="pixels"
    )
    width: Annotated[int, IN_PICTURE] = Field(
        default=1024, ge=units.LEAST_PIXELS, le=units.MOST_PIXELS, description="pixels"
    )
    num_frames: Annotated[int, IN_PICTURE] = Field(
        default=1, ge=1, le=units.MOST_FRAMES, description="frames of a clip"
    )
    fps: Annotated[float, IN_PICTURE] = Field(
        default=16.0, ge=0.01, le=1000, description="frames a second of a clip"
    )
    init: Annotated[str | None, IN_PICTURE] = Field(
        default=None, min_length=1, description="picture or clip to redraw; default: none"
    )
    strength: Annotated[float, IN_PICTURE] = Field(
        default=0.6,
        ge=0.001,
        le=1,
        description="how much of --init to redraw; with --place 1",
    )
    upscale: Annotated[str | None, Role(None, came_later=True)] = Field(
        default=None,
        min_length=1,
        description="picture or clip that the decoder enlarges, nothing is denoised then; or that "
        "is redrawn larger, with creativity",
    )
    creativity: Annotated[float | None, Role(None, came_later=True)] = Field(
        default=None, ge=0, le=1, description="how freely upscale's picture is redrawn"
    )
    guide: Annotated[HeldBy | None, Role(None, came_later=True)] = Field(
        default=None, description="what holds a redrawn picture; default: low-band"
    )
    image: Annotated[str | None, IN_PICTURE] = Field(
        default=None, min_length=1, description="first frame to animate; default: none"
    )
    mask: Annotated[str | None, Role("Picture", came_later=True)] = Field(
        default=None,
        min_length=1,
        description="white where --init is redrawn, black where it stays; without it, not black "
        "where cinescale treats the picture as inside; default: none",
    )
    resize_mask: Annotated[bool, Role("Picture", came_later=True)] = Field(
        default=False, description="take a --mask of another size than the picture, and resize it"
    )
    feather: Annotated[int | None, Role("Picture", came_later=True)] = Field(
        default=None,
        ge=0,
        le=4096,
        description="pixels around what is redrawn over which it fades into --init; default: 16",
    )
    place: Annotated[Place | None, Role("Picture", came_later=True)] = Field(
        default=None,
        description="X,Y: where --init stands at its own size, the rest is drawn; default: it is "
        "resized to fill the picture",
    )
    resamplings: Annotated[int | None, Role("Picture", came_later=True)] = Field(
        default=None,
        ge=1,
        le=100,
        description="times that noisy steps of the first stage are drawn, so that what is redrawn "
        "fits what stays; default: 8 with --place, else 1",
    )
    edit: Annotated[tuple[Edit, ...], Role("Picture", came_later=True)] = Field(
        default=(),
        max_length=MOST_EDITS,
        description="MASK=PROMPT: another prompt where a mask is white; repeatable; default: none",
    )
    edit_stage: Annotated[int, Role("Picture", came_later=True)] = Field(
        default=1, ge=1, le=100, description="first stage of a cascade that --edit acts in"
    )
    num_inference_steps: Annotated[int, IN_PICTURE] = Field(
        default=20, ge=1, le=1000, description="steps of a stage"
    )
    guidance_scale: Annotated[float | None, IN_PICTURE] = Field(
        default=None, ge=0, le=MOST_GUIDANCE, description="guidance strength; default: the family's"
    )
    guidance_scale_2: Annotated[float | None, IN_PICTURE] = Field(
        default=None,
        ge=0,
        le=MOST_GUIDANCE,
        description="the same for Wan 2.2's low-noise expert; default: the first one's",
    )
    true_cfg_scale: Annotated[float | None, IN_PICTURE] = Field(
        default=None,
        ge=1,
        le=MOST_GUIDANCE,
        description="classifier-free guidance of FLUX and Qwen-Image; default: the family's",
    )
    max_sequence_length: Annotated[int | None, IN_MODEL] = Field(
        default=None, ge=1, le=2**20, description="prompt tokens; default: the family's"
    )
    seed: Annotated[int, IN_PICTURE] = Field(
        default=0, ge=0, lt=2**63, description="decides the noise"
    )
    method: Annotated[str, IN_MODEL] = Field(
        default="auto", description="extrapolation recipe: auto, none, pi, ..."
    )
    method_options: Annotated[PlainOptions, IN_MODEL] = Field(
        default_factory=dict, description="NAME=VALUE of the method; repeatable; default: its own"
    )
    scheduler: Annotated[str | None, Role("Model", came_later=True)] = Field(
        default=None,
        min_length=1,
        description="diffusers' class that steps, as LCMScheduler; default: the checkpoint's",
    )
    scheduler_options: Annotated[PlainOptions, Role("Model", came_later=True)] = Field(
        default_factory=dict,
        description="NAME=VALUE in the scheduler's config, as timestep_spacing=trailing; "
        "repeatable; default: the checkpoint's",
    )
    attend: Annotated[Attending | None, Role("Model", came_later=True)] = Field(
        default=None,
        description="what later stages attend to: full, pooled, shifted, windows, fused; by noise "
        "level full,pooled@0.5; default: the method's",
    )
    wrap: Annotated[Literal["x", "y", "xy"] | None, Role("Picture", came_later=True)] = Field(
        default=None,
        description="sides that meet, for panoramas (x) and textures (xy); default: none",
    )
    cache: Annotated[CacheText | None, Role("Model", came_later=True)] = Field(
        default=None,
        description="steps reuse most of the network where its first block changed by less than "
        "this share, as 0.1; default: never",
    )
    stages: Annotated[tuple[StageSpec, ...] | None, IN_MODEL] = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="a stage, as scale=1,start=0.5,steps=4; repeatable; default: the method's",
    )
    shift: Annotated[float | None, IN_MODEL] = Field(
        default=None,
        ge=LEAST_SHIFT,
        le=MOST_SHIFT,
        description="timestep shift of every stage; default: by its size",
    )
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], IN_MODEL] = Field(
        default="float32", description="precision of the weights and of the work"
    )
    bits: Annotated[Literal[8, 16], Role("Output")] = Field(
        default=8, description="bits per channel of the picture"
    )
    watermark: Annotated[str | None, Role("Output", came_later=True)] = Field(
        default=None, min_length=1, description="mark put into pixels: luminance; default: none"
    )
    watermark_options: Annotated[PlainOptions, Role("Output", came_later=True)] = Field(
        default_factory=dict, description="NAME=VALUE of the mark; repeatable; default: its own"
    )
    out: Annotated[str, IN_OUTPUT] = Field(
        default="picture.zarr", min_length=1, description=".zarr, .tif, .png, .mp4, .mov ..."
    )
    overwrite: Annotated[bool, IN_OUTPUT] = Field(
        default=False, description="replace what is at --out"
    )
    workers: Annotated[int, IN_WORK] = Field(
        default=1,
        ge=1,
        le=units.MOST_WORKERS,
        description="ranks the canvas is cut over: 4, or 2..8",
    )
    max_workers: Annotated[int | None, Role(None, decides_pixels=False)] = Field(
        default=None, ge=1, le=units.MOST_WORKERS, description="the most, if there is room"
    )
    local: Annotated[bool, IN_WORK] = Field(
        default=False, description="threads of this process instead of Ray"
    )
    park: Annotated[Literal["host", "disk"] | None, IN_WORK] = Field(
        default=None,
        description="with --local: where waiting bands leave their memory; default: they keep it",
    )
    address: Annotated[str | None, IN_WORK] = Field(
        default=None, description="Ray cluster; default: start one here"
    )
    device: Annotated[str, IN_WORK] = Field(default="auto", description="auto, cpu or cuda")
    guidance_ranks: Annotated[Literal[1, 2], IN_WORK] = Field(
        default=1, description="2: half of the workers for each prompt"
    )
    device_memory: Annotated[float | None, IN_WORK] = Field(
        default=None,
        gt=0,
        le=1e6,
        description="GiB of each device, for the plan; default: as found",
    )
    ulysses: Annotated[int, IN_WORK] = Field(
        default=1, ge=1, le=units.MOST_WORKERS, description="ranks that share heads; the rest ring"
    )
    strategy: Annotated[str, Role("Work", came_later=True)] = Field(
        default="bands", description="how the canvas is spread over workers: bands, tiles, ..."
    )
    strategy_options: Annotated[PlainOptions, Role("Work", came_later=True)] = Field(
        default_factory=dict,
        description="NAME=VALUE of the strategy; repeatable; default: its own",
    )
    chunk: Annotated[int | None, IN_WORK] = Field(
        default=None, ge=16, le=2**16, description="pixels a side of a block; default: by the size"
    )
    save_every: Annotated[int, IN_WORK] = Field(
        default=1, ge=1, le=10**6, description="steps between saved states"
    )
    timeout: Annotated[float, IN_WORK] = Field(
        default=600.0, gt=0, le=units.MOST_SECONDS, description="seconds without a sign of life"
    )
    wait: Annotated[float, IN_WORK] = Field(
        default=60.0,
        gt=0,
        le=units.MOST_SECONDS,
        description="seconds for the cluster to make room for workers",
    )
    trace_digests: Annotated[bool, IN_WORK] = Field(
        default=False, description="log digests of all that steps take and make"
    )
    dpi: Annotated[float, IN_OUTPUT] = Field(
        default=units.DPI,
        ge=units.LEAST_DPI,
        le=units.MOST_DPI,
        description="dots per inch written to the file",
    )
    print: Annotated[PrintSize | None, IN_OUTPUT] = Field(
        default=None, description="size on paper, as 60x40cm: pixels by --dpi, or dpi by --size"
    )
    bleed: Annotated[Length | None, IN_OUTPUT] = Field(
        default=None, description="drawn around --print and cut off, as 3mm; default: none"
    )
    color: Annotated[str | None, IN_OUTPUT] = Field(
        default=None,
        min_length=1,
        description="colours of files: srgb, display-p3, adobe-rgb or an ICC profile of RGB or "
        "CMYK; default: sRGB, of an upscale its picture's",
    )
    intent: Annotated[Intent, IN_OUTPUT] = Field(
        default="relative", description="what becomes of colours that --color has not"
    )

    @model_validator(mode="before")
    @classmethod
    def _told(cls, values: Any) -> Any:
        """A range of workers in words, and what follows from a print's size, or from a place."""
        if not isinstance(values, Mapping):
            return values
        if values.get("decoder") == NO_DECODER:
            values = {**values, "decoder": None}
        return outpainted(sized(ranged(values)))

    @model_validator(mode="after")
    def _names(self) -> RenderSpec:
        """No field holds what a path, a word of a command or a file in UTF-8 could not."""
        for name, value in self:
            if not all(map(is_text, texts(value))):
                raise ValueError(f"{name} = {shown(value)}: no text in UTF-8, or with a zero byte")
        return self

    @model_validator(mode="after")
    def _fits(self) -> RenderSpec:
        if self.edit_stage > 1 and not self.edit:
            raise ValueError(f"edit_stage {self.edit_stage}: there is no edit")
        if self.max_workers is None:
            return self
        if self.max_workers < self.workers:
            raise ValueError(f"workers {self.workers}..{self.max_workers}: the fewest come first")
        if self.local:
            raise ValueError(f"workers {self.workers}..{self.max_workers} come and go on Ray only")
        return self

    @property
    def redraws(self) -> bool:
        """Whether a picture that is handed in is redrawn larger."""
        return self.upscale is not None and self.creativity is not None

    @property
    def denoises(self) -> bool:
        """Whether anything is: a decoder alone enlarges without."""
        return self.upscale is None or self.redraws

    @property
    def inpaints(self) -> bool:
        """Whether a part of a picture is redrawn, and the rest stays."""
        return self.init is not None and (self.mask is not None or self.place is not None)

    @property
    def is_laid_out(self) -> bool:
        """Whether a picture that is drawn over gives the layout, and nothing is drawn small first.

        One that is drawn around gives none.
        """
        return self.init is not None and self.place is None

    @property
    def most_workers(self) -> int:
        """The most workers that may draw at the same time."""
        return self.max_workers or self.workers


RECORDS: dict[str, type[BaseModel]] = {"stages": StageSpec, "edit": Edit}


def parse(values: Mapping[str, Any]) -> RenderSpec:
    """RenderSpec from plain values; raises `SpecError` that names the field and what would work."""
    try:
        return RenderSpec.model_validate(dict(values))
    except ValidationError as error:
        raise SpecError(explained(error, RenderSpec, RECORDS)) from None
