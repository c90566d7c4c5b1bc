"""ControlNets: as diffusers' pipelines draw with them, on any ranks, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoints.controlnet import build_controlnet
from contracts.gallery import Gallery, differ, equal
from frieze.renderer import FriezeError, plan, resume
from support.drawing import stop_after

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return Gallery(tmp_path_factory.mktemp("controlnet"))


def guided(gallery: Gallery, name: str, **fields: Any) -> dict[str, Any]:
    """Fields that draw a layout by its ControlNet."""
    folder = gallery.folder / f"{name}-controlnet"
    if not folder.exists():
        build_controlnet(gallery.checkpoint(name), folder)
    return {"controlnet": str(folder), "control": gallery.picture(name), **fields}


@pytest.mark.parametrize("name", [pytest.param("sd15", marks=pytest.mark.slow), "sdxl"])
def test_a_controlnet_guides_as_in_diffusers_on_any_ranks(gallery: Gallery, name: str) -> None:
    fields = guided(gallery, name, controlnet_conditioning_scale=0.8)
    expected = gallery.stock(name, **fields)
    equal(gallery.drawn(name, **fields), expected)
    equal(gallery.drawn(name, **fields, workers=3), expected)
    differ(gallery.drawn(name), expected)


def test_it_counts_from_a_part_of_the_steps_to_another(gallery: Gallery) -> None:
    fields = guided(gallery, "sdxl", control_guidance_start=0.3, control_guidance_end=0.7)
    expected = gallery.stock("sdxl", **fields)
    equal(gallery.drawn("sdxl", **fields, workers=2), expected)
    differ(gallery.drawn("sdxl", **guided(gallery, "sdxl")), expected)


def test_a_stopped_render_goes_on_without_the_picture(gallery: Gallery, tmp_path: Path) -> None:
    fields = guided(gallery, "sdxl")
    copy = tmp_path / "control.png"
    shutil.copy(fields["control"], copy)
    out = tmp_path / "a.zarr"
    stop_after(gallery.spec("sdxl", **fields | {"control": str(copy)}, out=str(out)), 1)
    copy.unlink()
    resume(out)
    drawn = gallery.opened("sdxl", out)
    assert np.array_equal(drawn.pixels_THWC, gallery.drawn("sdxl", **fields).pixels_THWC)


def test_a_plan_counts_it(gallery: Gallery) -> None:
    fields = guided(gallery, "sdxl")
    with_it, without = (plan(gallery.spec("sdxl", **each)) for each in (fields, {}))
    assert with_it.estimate.weights > without.estimate.weights
    assert with_it.cost.stages[0].kinds[0].flops > 1.2 * without.cost.stages[0].kinds[0].flops


def test_what_does_not_go_together_is_refused_in_one_line(gallery: Gallery, tmp_path: Path) -> None:
    fields = guided(gallery, "sdxl")
    other = guided(gallery, "sd15")["controlnet"]
    odd = tmp_path / "odd"
    shutil.copytree(fields["controlnet"], odd)
    config = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps(config | {"_class_name": "FluxControlNetModel"}))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"control": None}, "follows a picture"),
        ({"controlnet": None}, "is for a controlnet"),
        ({"control": str(tmp_path / "no.png")}, "no.png"),
        ({"controlnet": other}, "made for another model"),
        ({"controlnet": str(odd)}, "takes a ControlNetModel"),
        ({"controlnet": str(tmp_path)}, "no folder with a config.json"),
        ({"control_guidance_start": 1.0}, "not before control_guidance_end 1"),
        ({"strategy": "tiles"}, "strategy 'tiles'|tiles"),
    ]
    for changes, told in cases:
        with pytest.raises(FriezeError, match=told) as error:
            plan(gallery.spec("sdxl", **fields | changes))
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 1200
    flux = fields | {"negative_prompt": None}
    with pytest.raises(FriezeError, match="flux takes none here"):
        plan(gallery.spec("flux", **flux))
