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


# Published FLUX ControlNets: of one kind, of several, and XLabs', which see pixels.
PLAIN: dict[str, Any] = {}
UNION = {"num_mode": 3, "guidance_embeds": False}
PIXELS = {"conditioning_embedding_channels": 16, "patch_size": 2, "num_single_layers": 0}


def guided(
    gallery: Gallery, name: str, options: dict[str, Any] = PLAIN, **fields: Any
) -> dict[str, Any]:
    """Fields that draw a layout by its ControlNet."""
    folder = gallery.controlnet(name, **options)
    return {"controlnet": folder, "control": gallery.picture(name), **fields}


@pytest.mark.parametrize(
    ("options", "fields", "ranks"),
    [
        (PLAIN, {}, {"workers": 4, "guidance_ranks": 2}),
        (UNION, {"control_mode": 2}, {"workers": 2, "ulysses": 2}),
        (PIXELS, {}, {"workers": 3}),
    ],
    ids=["halves of guidance", "union", "pixels"],
)
def test_flux_is_guided_as_in_diffusers_on_any_ranks(
    gallery: Gallery, options: dict[str, Any], fields: dict[str, Any], ranks: dict[str, int]
) -> None:
    fields = guided(gallery, "flux", options, controlnet_conditioning_scale=0.8, **fields)
    expected = gallery.stock("flux", **fields)
    equal(gallery.drawn("flux", **fields), expected)
    equal(gallery.drawn("flux", **fields, **ranks), expected)
    differ(gallery.drawn("flux"), expected)


def test_it_counts_from_a_part_of_the_steps_to_another(gallery: Gallery) -> None:
    fields = guided(gallery, "sdxl", control_guidance_start=0.3, control_guidance_end=0.7)
    expected = gallery.stock("sdxl", **fields)
    equal(gallery.drawn("sdxl", **fields, workers=2), expected)
    differ(gallery.drawn("sdxl", **guided(gallery, "sdxl")), expected)


@pytest.mark.parametrize("name", ["sdxl", "flux"])
def test_a_stopped_render_goes_on_without_the_picture(
    gallery: Gallery, name: str, tmp_path: Path
) -> None:
    fields = guided(gallery, name)
    copy = tmp_path / "control.png"
    shutil.copy(fields["control"], copy)
    out = tmp_path / "a.zarr"
    stop_after(gallery.spec(name, **fields | {"control": str(copy)}, out=str(out)), 1)
    copy.unlink()
    resume(out)
    drawn = gallery.opened(name, out)
    assert np.array_equal(drawn.pixels_THWC, gallery.drawn(name, **fields).pixels_THWC)


@pytest.mark.parametrize(("name", "options"), [("sdxl", PLAIN), ("flux", PLAIN), ("flux", PIXELS)])
def test_a_plan_counts_it(gallery: Gallery, name: str, options: dict[str, Any]) -> None:
    fields = guided(gallery, name, options)
    with_it, without = (plan(gallery.spec(name, **each)) for each in (fields, {}))
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


def test_what_flux_cannot_follow_is_refused_in_one_line(gallery: Gallery, tmp_path: Path) -> None:
    fields = guided(gallery, "flux")
    union = guided(gallery, "flux", UNION)["controlnet"]
    wide = str(build_controlnet(gallery.checkpoint("flux"), tmp_path / "w", num_attention_heads=4))
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("flux", {"controlnet": guided(gallery, "sdxl")["controlnet"]}, "is a .ControlNetModel"),
        ("flux", {"controlnet": wide}, "num_attention_heads is 4 there and 2 here"),
        ("flux", {"control_mode": 1}, "control_mode 1 is for a union"),
        ("flux", {"controlnet": union}, "kinds 0 to 2 and none is given"),
        ("flux", {"controlnet": union, "control_mode": 3}, "kinds 0 to 2 and 3 is not"),
        ("flux-schnell", {}, "is told a guidance_scale"),
        ("sd3", {}, "sd3 takes none here"),
    ]
    for name, changes, told in cases:
        with pytest.raises(FriezeError, match=told) as error:
            plan(gallery.spec(name, **fields | changes))
        assert "\n" not in str(error.value)
    none = {"controlnet": None, "control": None, "control_mode": 1}
    with pytest.raises(FriezeError, match="control_mode 1 is for a controlnet"):
        plan(gallery.spec("flux", **fields | none))
