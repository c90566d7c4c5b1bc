"""HiDiffusion (arXiv 2311.17528): deep maps of the trained size, attention in shifted windows.

For Stable Diffusion's U-Nets. A resolution-aware U-Net (RAU-Net) strides farther and pools in the
first steps, so that its deepest maps, which decide the layout, are as large as in training; then
nothing is drawn twice. Self-attention at the largest maps looks into four windows, which move from
step to step (MSW-MSA): a quarter of the work. One stage; either half can be had alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ..checkpoints.facts import ModelFacts
from ..extrapolation.cascade import stages_of
from ..extrapolation.method import ControlMap, Convolutions, Method, Stage, StepContext
from ..extrapolation.method_options import MethodOptions, OddMap, StepOrder, Switch
from ..extrapolation.unet_layouts import Model, layout, published_unet
from ..spec.render_spec import RenderSpec

if TYPE_CHECKING:
    from frieze.cluster.attention import AttentionShape
    from frieze.cluster.bands import ConvShape

    from ..extrapolation.method import WindowPolicy


class Options(MethodOptions):
    """Of the resolution-aware U-Net and of the windows."""

    raunet: Switch = Field(default=True, description="keep deep maps at the trained size")
    windows: Switch = Field(
        default=True, description="let the largest maps attend in shifted windows"
    )
    schedule: StepOrder = Field(
        default="published",
        description="both from the first step on, or stride at first and pool after (aggressive); "
        "default: as released for the model and the size",
    )
    strided: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="part of the steps that stride; default: as released",
    )
    pooled: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="part of the steps until which is pooled; default: as released",
    )
    shift: Literal["seeded", "steps"] = Field(
        default="seeded",
        description="how windows move: by draws of the seed, no layer twice alike in a row, or a "
        "quarter a step",
    )
    odd: OddMap = Field(
        default="cut",
        description="of maps with an odd side: windows of unequal size, or an even map as released",
    )
    control: float = Field(
        default=0.6,
        ge=0,
        le=1,
        description="part of the steps until which a ControlNet counts, on a map of the trained "
        "size",
    )


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """One stage, whose convolutions and windows follow the step.

    Raises `PlanError` for a model that is none of those that HiDiffusion was published for.
    """
    model, options = published_unet(spec, facts), Options.read(spec)
    return Method(
        stages=stages_of(spec, (Stage(),)),
        windows=_window_policy(model, options) if options.windows else None,
        convolutions=_convolutions(model, options, spec) if options.raunet else None,
        control=ControlMap(facts.training_size // facts.latent.downscale, options.control),
    )


def _window_policy(model: Model, options: Options) -> WindowPolicy:
    """Two by two windows at the largest maps that attend, shifted."""
    from ..extrapolation.windows import WINDOWED, shifted_shape, shifts

    blocks = WINDOWED[layout(model)]

    def windows(context: StepContext, layer: str, rows: int, columns: int) -> AttentionShape | None:
        if not layer.startswith(blocks):
            return None
        shift = context.step % 4
        if options.shift == "seeded":
            shift = shifts(f"{context.seed}/{context.stage}/{layer}", context.step)
        return shifted_shape(rows, columns, shift, options.odd)

    return windows


def _convolutions(model: Model, options: Options, spec: RenderSpec) -> Convolutions:
    """RAU-Net, by the thresholds that were published unless others are given.

    Of SDXL with a ControlNet below 4096 pixels half of the steps pool.
    """
    from ..extrapolation.convolutions import raunet, raunet_schedule, raunet_sites

    def rule(context: StepContext) -> ConvShape:
        pooled = options.pooled
        is_small = min(context.canvas.height, context.canvas.width) < 512
        if pooled is None and spec.controlnet and model == "sdxl" and is_small:
            pooled = 0.5
        schedule = raunet_schedule(
            model,
            (context.canvas.height, context.canvas.width),
            context.num_steps,
            options.schedule,
            strided=options.strided,
            pooled=pooled,
        )
        return raunet(model, schedule, context.step)

    return Convolutions(rule, *raunet_sites(model))
