"""UltraImage (arXiv 2512.04504): RDFC against repetition, EAAC against blur, in three modes.

`direct` draws at the picture's size at once. `resolution` first draws at the trained size, then
again from noise at full size, the low band led by the enlarged picture. `view` leaves the picture
of the trained size at a place of the larger canvas and draws what is around it, if wanted from a
prompt of its own.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from pydantic import Field

from ..checkpoints.facts import ModelFacts
from ..extrapolation.cascade import from_trained_size, stages_of
from ..extrapolation.concentration import ConcentrationOptions
from ..extrapolation.frequency_correction import (
    Choice,
    Correction,
    corrected_positions,
    detection,
)
from ..extrapolation.guides import Form, Guide, Resolution, View, WeightCurve
from ..extrapolation.method import Method, Stage
from ..extrapolation.method_options import Index, NotNegative, Number, Switch
from ..spec.render_spec import RenderSpec


class Options(ConcentrationOptions, Correction):
    """Those of the modes, of the correction and of the concentration."""

    chooser: ClassVar[str] = "rdfc_mode"  # the correction's own `mode` is called so here

    mode: Literal["direct", "resolution", "view"] = Field(
        default="direct", description="draw at once, led by the small picture, or around it"
    )
    schedule: WeightCurve = Field(
        default="cosine_decay", description="how the guidance goes from the first step to the last"
    )
    strength: NotNegative = Field(default=1.0, description="what the guidance is multiplied by")
    half_token: Switch = Field(
        default=True, description="lay the grid of tokens half a token off at every other step"
    )
    form: Form = Field(default="noisy", description="of mode=view: how the small picture is held")
    top: Number | None = Field(
        default=None,
        description="upper edge of the view, in parts of the canvas; default: the middle",
    )
    left: Number | None = Field(
        default=None,
        description="left edge of the view, in parts of the canvas; default: the middle",
    )
    share: float = Field(
        default=11 / 30, ge=0, le=1, description="part of the steps that the view is held for"
    )
    feather: Index = Field(default=4, description="tokens over which the edges of the view fade")
    canvas_prompt: str = Field(
        default="", description="what is drawn around the view; default: the same prompt"
    )
    rdfc_mode: Choice = Field(
        default="dominant",
        description="which frequencies are corrected: the dominant one, all that repeat, those "
        "that are detected, or none",
    )
    lowest: Number | None = Field(
        default=None, description="least entropy in nats; default: that of all heads"
    )
    highest: Number | None = Field(
        default=None, description="greatest entropy in nats; default: that of all heads"
    )


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """One stage in mode `direct`, else two: the trained size, then the picture's, guided."""

    def of(options: Options) -> Method:
        return Method(
            stages=_stages(spec, facts, options),
            positions=corrected_positions(options),
            focus=options.focus(options.lowest, options.highest),
            guide=_guide(options),
            detection=detection(options, of),
        )

    return of(Options.read(spec))


def _stages(spec: RenderSpec, facts: ModelFacts, options: Options) -> tuple[Stage, ...]:
    """The mode's stages, or the spec's; later ones with the prompt of the large canvas."""
    own = (Stage(),) if options.mode == "direct" else from_trained_size(spec, facts)
    if options.mode == "view":
        # The view is the small latents as they are: no picture of them is wanted.
        own = tuple(dataclasses.replace(stage, enlarge="latents") for stage in own)
    stages = stages_of(spec, own)
    prompt = options.canvas_prompt or None
    if prompt is None:
        return stages
    later = [dataclasses.replace(s, prompt=s.prompt or prompt) for s in stages[1:]]
    return (stages[0], *later)


def _guide(options: Options) -> Guide | None:
    if options.mode == "resolution":
        return Resolution(options.schedule, options.strength, options.half_token)
    if options.mode == "view":
        return View(
            form=options.form,
            top=options.top,
            left=options.left,
            share=options.share,
            feather=options.feather,
            schedule=options.schedule,
        )
    return None
