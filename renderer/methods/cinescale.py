"""CineScale's U-Net half, FreeScale (arXiv 2412.09626, 2508.15774): a cascade that fuses scales.

For Stable Diffusion's U-Nets. The picture is drawn at the trained size, enlarged in pixels, noised
again for the last 70 % of the steps, and so on up to its own size. In later stages self-attention
fuses windows of the trained size, which are right in the coarse, with the whole canvas, which is
right in the fine; the deepest convolutions are dilated at first; and the enlarged picture holds the
latents for as long as the detail factor says, in regions if there is a mask.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ..checkpoints.facts import ModelFacts
from ..extrapolation.cascade import growing, stages_of
from ..extrapolation.guides import Detail
from ..extrapolation.method import Convolutions, Method, Stage, StepContext
from ..extrapolation.method_options import MethodOptions, Positive, SizeTold, Switch
from ..extrapolation.unet_layouts import Model, published_unet
from ..spec.render_spec import RenderSpec

if TYPE_CHECKING:
    from frieze.cluster.attention import AttentionShape
    from frieze.cluster.bands import ConvShape

    from ..extrapolation.method import WindowPolicy


class Options(MethodOptions):
    """Of the cascade, the detail factor, the fusion, the dilation and FreeU."""

    restart: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="part of the steps that a later stage leaves out; default: 0.3, Turbo 0.5",
    )
    detail: Positive = Field(
        default=2.0,
        description="detail factor: how soon the enlarged picture lets go; 1 to 2, at 8192 up to 1",
    )
    inside: Positive = Field(
        default=3.0, description="the same where --mask is not black, if there is one"
    )
    outside: Positive = Field(default=0.5, description="the same where --mask is black")
    fusion: Literal["hwc", "hw", "wc", "none"] = Field(
        default="hwc",
        description="what the Gaussian between windows and canvas runs over: as released, as the "
        "paper writes it, as released at first; or the canvas alone",
    )
    fast: Switch = Field(
        default=False, description="let interleaved grids of the trained size stand for the canvas"
    )
    jitter: Literal["separable", "released", "none"] = Field(
        default="separable",
        description="how windows move: rows and columns of them together, each for itself, not",
    )
    dilation: Switch = Field(default=True, description="dilate the deepest convolutions")
    dilated: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="part of all steps until which they are; default: 0.7, Turbo 1",
    )
    free_u: Switch = Field(
        default=True, description="raise the backbone and lower the skips' coarsest part (FreeU)"
    )
    b1: Positive = Field(default=1.1, description="FreeU: where the backbone is widest")
    b2: Positive = Field(default=1.2, description="FreeU: where it is next")
    s1: Positive = Field(default=0.6, description="FreeU: of the skips there")
    s2: Positive = Field(default=0.4, description="FreeU: of the skips where it is next")
    size_told: SizeTold = Field(
        default="first", description="the picture's size that SDXL is told: the first stage's"
    )


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """A cascade of doubling sizes or less; the plain model up to the trained area.

    Raises `PlanError` for a model whose network is none of Stable Diffusion's.
    """
    model, options = published_unet(spec, facts), Options.read(spec)
    stages = stages_of(spec, _stages(spec, facts, model, options))
    if len(stages) == 1:
        return Method(stages=stages, guide=_detail(options))
    from ..extrapolation.skip_filter import FreeU

    factors = FreeU(options.b1, options.b2, options.s1, options.s2)
    return Method(
        stages=stages,
        windows=_window_policy(options),
        convolutions=_convolutions(spec, model, options, stages) if options.dilation else None,
        guide=_detail(options),
        skips=factors if options.free_u else None,
        micro_conditioning=options.size_told,
    )


def _stages(
    spec: RenderSpec, facts: ModelFacts, model: Model, options: Options
) -> tuple[Stage, ...]:
    """Later stages take the last of as many steps as the first, from where these are so noisy."""
    restart = options.restart
    if restart is None:
        restart = 0.5 if model == "sdxl_turbo" else 0.3
    num_steps = spec.num_inference_steps
    steps = num_steps - int(restart * num_steps)
    scales = growing(spec, facts)
    later = (Stage(scale=scale, start=steps / num_steps, steps=steps) for scale in scales[1:])
    return (Stage(scale=scales[0]), *later)


def _detail(options: Options) -> Detail:
    return Detail(options.detail, options.inside, options.outside)


def _window_policy(options: Options) -> WindowPolicy | None:
    """Every self-attention of the stages after the first in fusion; moved by the seed and step."""
    from ..extrapolation.windows import fused_shape, seeded

    if (axes := options.fusion) == "none":
        return None

    def windows(context: StepContext, layer: str, rows: int, columns: int) -> AttentionShape | None:
        if not context.stage:
            return None
        draw = seeded(f"{context.seed}/{context.stage}/{context.step}/{layer}")
        return fused_shape(
            rows,
            columns,
            context.scale,
            None if options.jitter == "none" else draw,
            axes=axes,
            fast=options.fast,
            separable=options.jitter != "released",
        )

    return windows


def _convolutions(
    spec: RenderSpec, model: Model, options: Options, stages: tuple[Stage, ...]
) -> Convolutions:
    """The deepest layers dilated, by how many times the canvas' longer side is the trained one.

    As released by its width alone; here a picture and the turned one are alike.
    """
    from ..extrapolation.convolutions import dilated, dilated_layers

    share, unit = options.dilated, 1
    if model == "sdxl_turbo":  # dilated at every step as released, and by pixels of SDXL's size
        share, unit = 1.0 if share is None else share, 2

    def rule(context: StepContext) -> ConvShape | None:
        stage = stages[context.stage]
        steps = stage.steps or spec.num_inference_steps
        all_steps = max(steps, round(steps / stage.start))
        last = int((0.7 if share is None else share) * all_steps)
        dilation = math.floor(max(context.scale) / unit + 1e-9)
        if not context.stage or dilation < 2 or all_steps - steps + context.step >= last:
            return None
        return dilated(dilation, model)

    return Convolutions(rule, dilated_layers(model))
