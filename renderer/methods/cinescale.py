"""CineScale (arXiv 2508.15774; its U-Net half is FreeScale, 2412.09626): a cascade that restarts.

A picture is drawn at the trained size, enlarged, noised again for the last 70 % of the steps, and
so on up to its own size. With the U-Nets of Stable Diffusion self-attention of later stages fuses
windows of the trained size, which are right in the coarse, with the whole canvas, which is right in
the fine; the deepest convolutions are dilated at first; and the enlarged picture holds the latents
for as long as the detail factor says, in regions if there is a mask. With transformers the base of
rotary positions grows (NTK), attention is scaled by the tokens of a latent frame, and the timestep
shift grows by 4/7 of the first stage's for each time its side: 7, 9, 11 at 1088 x 1920, 1632 x 2880
and 2176 x 3840, as released for Wan 2.1 with a LoRA. Pictures are enlarged in pixels, clips in
latents, linearly. The form of 2026, which needs no LoRA, draws keys in instead. A picture or clip
to redraw stands for the first stage.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field

from ..checkpoints.facts import ModelFacts
from ..extrapolation.cascade import first_enlarged, growing, restarted, stages_of
from ..extrapolation.method import Convolutions, Method, Stage, StepContext
from ..extrapolation.method_options import Positive, SizeTold, Switch
from ..extrapolation.transformer_cascade import (
    OF_TRANSFORMERS,
    TransformerOptions,
    refuse,
    transformer_cascade,
)
from ..extrapolation.unet_layouts import Model, published_unet
from ..spec.render_spec import RenderSpec

if TYPE_CHECKING:
    from frieze.cluster.bands import ConvShape


class Options(TransformerOptions):
    """Of the cascade; and of a U-Net its dilation and FreeU."""

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


# Options that only U-Nets have a use for.
OF_UNETS = frozenset(Options.model_fields) - TransformerOptions.model_fields.keys()


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """A cascade of doubling sizes or less; the plain model up to the trained area.

    Raises `PlanError` for a U-Net that is none of Stable Diffusion's, and for what the network has
    no use for.
    """
    options = Options.read(spec)
    if facts.attentions:
        return _of_unet(spec, facts, options)
    refuse(OF_UNETS, options, f"U-Nets, and {facts.family} has none")
    return transformer_cascade(spec, facts, options)


def _of_unet(spec: RenderSpec, facts: ModelFacts, options: Options) -> Method:
    model = published_unet(spec, facts)
    refuse(OF_TRANSFORMERS, options, "transformers, and this is a U-Net")
    restart = options.restart
    if restart is None:
        restart = 0.5 if model == "sdxl_turbo" else 0.3
    stages = stages_of(spec, restarted(growing(spec, facts), spec.num_inference_steps, restart))
    if len(stages) == first_enlarged(spec):
        return Method(stages=stages, guide=options.hold)
    from ..extrapolation.skip_filter import FreeU

    factors = FreeU(options.b1, options.b2, options.s1, options.s2)
    fusion = options.fusion or "hwc"
    return Method(
        stages=stages,
        windows=options.windows(fusion, first=first_enlarged(spec)),
        convolutions=_convolutions(spec, model, options, stages) if options.dilation else None,
        guide=options.hold,
        skips=factors if options.free_u else None,
        micro_conditioning=options.size_told,
    )


def _convolutions(
    spec: RenderSpec, model: Model, options: Options, stages: tuple[Stage, ...]
) -> Convolutions:
    """The deepest layers dilated, by how many times the canvas' longer side is the trained one.

    As released by its width alone; here a picture and the turned one are alike.
    """
    from ..extrapolation.convolutions import dilated, dilated_layers

    share, unit, first = options.dilated, 1, first_enlarged(spec)
    if model == "sdxl_turbo":  # dilated at every step as released, and by pixels of SDXL's size
        share, unit = 1.0 if share is None else share, 2

    def rule(context: StepContext) -> ConvShape | None:
        stage = stages[context.stage]
        steps = stage.steps or spec.num_inference_steps
        all_steps = max(steps, round(steps / stage.start))
        last = int((0.7 if share is None else share) * all_steps)
        dilation = math.floor(max(context.scale) / unit + 1e-9)
        if context.stage < first or dilation < 2 or all_steps - steps + context.step >= last:
            return None
        return dilated(dilation, model)

    return Convolutions(rule, dilated_layers(model))
