"""UltraImage (arXiv 2512.04504): RDFC against repetition, EAAC against blur, in three modes.

`direct` draws at the picture's size at once. `resolution` first draws at the trained size, then
again from noise at full size, the low band led by the enlarged picture. `view` leaves the picture
of the trained size at a place of the larger canvas and draws what is around it, if wanted from a
prompt of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

from ..checkpoints.facts import ModelFacts
from ..extrapolation import frequency_correction
from ..extrapolation.cascade import from_trained_size, stages_of
from ..extrapolation.concentration import concentration
from ..extrapolation.guides import FORMS, WEIGHT_CURVES, Guide, Resolution, View
from ..extrapolation.method import Focus, Method, Stage
from ..spec import method_options
from ..spec.method_options import Option
from ..spec.render_spec import RenderSpec

# The correction's own `mode` is `rdfc_mode` here.
CORRECTION = {
    ("rdfc_mode" if n == "mode" else n): o for n, o in frequency_correction.OPTIONS.items()
}
CONCENTRATION = {"least": 1.0, "most": 1.3, "power": 2.0}
EXTREMES = {"lowest": Option(None, "number"), "highest": Option(None, "number")}
GUIDE = {
    "mode": Option("direct", choices=("direct", "resolution", "view")),
    "schedule": Option("cosine_decay", choices=WEIGHT_CURVES),
    "strength": Option(1.0, least=0),
    "half_token": True,
    "form": Option("noisy", choices=FORMS),
    "top": Option(None, "number"),
    "left": Option(None, "number"),
    "share": Option(11 / 30, least=0, most=1),
    "feather": Option(4, least=0),
    "canvas_prompt": Option("", "word"),
}
OPTIONS = {**GUIDE, **CORRECTION, **CONCENTRATION, **EXTREMES, "pooled": Option(0, least=0)}


def method(spec: RenderSpec, facts: ModelFacts) -> Method:
    """Options are those of the modes, of `correction.OPTIONS` and of `heads.concentration`."""
    found = method_options.read(spec, OPTIONS)
    chosen = {
        name: found["rdfc_mode" if name == "mode" else name]
        for name in frequency_correction.OPTIONS
    }
    scale = partial(concentration, **{name: found[name] for name in (*CONCENTRATION, *EXTREMES)})
    return Method(
        stages=_stages(spec, facts, found),
        positions=frequency_correction.corrected_positions(chosen),
        focus=Focus(scale=scale, pooled=found["pooled"] or None),
        guide=_guide(found),
    )


def _stages(spec: RenderSpec, facts: ModelFacts, found: Mapping[str, Any]) -> tuple[Stage, ...]:
    """The mode's stages, or the spec's; later ones with the prompt of the large canvas."""
    own = (Stage(),) if found["mode"] == "direct" else from_trained_size(spec, facts)
    if found["mode"] == "view":
        # The view is the small latents as they are: no picture of them is wanted.
        own = tuple(dataclasses.replace(stage, enlarge="latents") for stage in own)
    stages = stages_of(spec, own)
    prompt = found["canvas_prompt"] or None
    if prompt is None:
        return stages
    later = [dataclasses.replace(s, prompt=s.prompt or prompt) for s in stages[1:]]
    return (stages[0], *later)


def _guide(found: Mapping[str, Any]) -> Guide | None:
    if found["mode"] == "resolution":
        return Resolution(found["schedule"], found["strength"], found["half_token"])
    if found["mode"] == "view":
        names = ("form", "top", "left", "share", "feather", "schedule")
        return View(**{name: found[name] for name in names})
    return None
