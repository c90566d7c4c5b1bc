"""Which published U-Net a model is follows from its files, whatever else a render is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

import checkpoints
from frieze.renderer.extrapolation.unet_layouts import published_unet
from frieze.renderer.planning.plan import plan
from frieze.renderer.spec.render_spec import RenderSpec


@pytest.mark.parametrize(
    ("name", "layout"), [("sdxl-deep", "sdxl"), ("sdxl-turbo-deep", "sdxl_turbo")]
)
@pytest.mark.parametrize("spacing", [None, "leading", "trailing"])
def test_another_spacing_of_timesteps_makes_no_other_network(
    name: str, layout: str, spacing: str | None, tmp_path: Path
) -> None:
    spec = RenderSpec(
        model=str(checkpoints.build(name, tmp_path)),
        method="hidiffusion",
        height=256,
        width=256,
        scheduler_options={} if spacing is None else {"timestep_spacing": spacing},
        local=True,
    )
    facts = plan(spec).facts
    own = "trailing" if layout == "sdxl_turbo" else "leading"
    assert facts.schedule.options.get("timestep_spacing", "leading") == (spacing or own)
    assert published_unet(spec, facts) == layout
