"""U-Nets that methods were published for, told by their levels; the names of their layers follow.

The layers that a method names are in the files that change them.
"""

from __future__ import annotations

from typing import Literal

from ..checkpoints.facts import ModelFacts
from ..errors import PlanError
from ..spec.render_spec import RenderSpec

Model = Literal["sd15", "sdxl", "sdxl_turbo", "sdxl_inpainting"]
Layout = Literal["sd15", "sdxl"]


def layout(model: Model) -> Layout:
    """Stable Diffusion's levels, or those of SDXL and its kin."""
    return "sd15" if model == "sd15" else "sdxl"


def published_unet(spec: RenderSpec, facts: ModelFacts) -> Model:
    """Which published U-Net a model's layout is; raises `PlanError` if it is none of them."""
    layouts: dict[tuple[int, ...], Model] = {(2, 2, 2, 0): "sd15", (0, 2, 2): "sdxl"}
    model = layouts.get(facts.attentions)
    if model is None:
        what = "another U-Net" if facts.attentions else f"{facts.family}, which has none"
        raise PlanError(
            f"method {spec.method!r} changes the U-Net of Stable Diffusion 1.5, 2.1, SDXL or "
            f"SDXL-Turbo, and {facts.folder} is {what}; use one of these models, or method auto"
        )
    # Turbo is SDXL distilled to few steps; another scheduler of a render makes none of SDXL.
    return "sdxl_turbo" if model == "sdxl" and facts.few_steps else model
