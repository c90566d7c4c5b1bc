"""ControlNets: as diffusers' pipelines draw with them, on any ranks, and what is refused."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.nn.functional as F
from torch import Tensor

from checkpoints.controlnet import build_controlnet
from checkpoints.stock import draw, load
from contracts.gallery import LAYOUTS, Drawn, Gallery, differ, equal
from frieze.renderer import FriezeError, plan, resume
from frieze.renderer.driver.fingerprint import identity
from frieze.renderer.driver.store_arrays import store_layout
from frieze.renderer.monitoring.reproduce import command
from frieze.renderer.spec.render_spec import parse
from frieze.renderer.store.run_record import published
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
    """On one rank: follows_a_controlnet of the contract."""
    fields = guided(gallery, "flux", options, controlnet_conditioning_scale=0.8, **fields)
    expected = gallery.stock("flux", **fields)
    equal(gallery.drawn("flux", **fields, **ranks), expected)
    differ(gallery.drawn("flux"), expected)


def test_it_counts_from_a_part_of_the_steps_to_another(gallery: Gallery) -> None:
    fields = guided(gallery, "sdxl", control_guidance_start=0.3, control_guidance_end=0.7)
    expected = gallery.stock("sdxl", **fields)
    equal(gallery.drawn("sdxl", **fields, workers=2), expected)
    differ(gallery.drawn("sdxl", **guided(gallery, "sdxl")), expected)


def test_guess_mode_leaves_the_negative_prompt_alone_as_in_diffusers(gallery: Gallery) -> None:
    fields = guided(gallery, "sd15", guess_mode=True)
    expected = gallery.stock("sd15", **fields)
    equal(gallery.drawn("sd15", **fields, workers=3), expected)
    equal(gallery.drawn("sd15", **fields, workers=2, guidance_ranks=2), expected)
    differ(gallery.stock("sd15", **guided(gallery, "sd15")), expected)


def two(gallery: Gallery, name: str, options: dict[str, Any] = PLAIN, **fields: Any) -> Any:
    """Fields that draw a layout by two ControlNets, each with its own picture and numbers."""
    folders = (gallery.controlnet(name, **options), gallery.controlnet(name, seed=9, **options))
    return {
        "controlnet": folders,
        "control": (gallery.picture(name), gallery.other_picture(name)),
        "controlnet_conditioning_scale": (0.5, 0.8),
        **fields,
    }


SEVERAL = [
    ("sd15", PLAIN, {"control_guidance_start": (0.0, 0.4)}, {"workers": 3}),
    ("sdxl", PLAIN, {"guess_mode": True}, {"workers": 3}),
    ("sdxl", PLAIN, {"control_guidance_end": 0.5}, {"workers": 2, "guidance_ranks": 2}),
    ("flux", PLAIN, {"control_guidance_start": (0.4, 0.0)}, {"workers": 3}),
    ("flux", UNION, {"control_mode": (2, 0)}, {"workers": 2, "ulysses": 2}),
    ("flux", PIXELS, {}, {"workers": 4, "guidance_ranks": 2}),
]


@pytest.mark.parametrize(("name", "options", "fields", "ranks"), SEVERAL)
def test_several_together_are_those_of_diffusers_on_any_ranks(
    gallery: Gallery, name: str, options: dict[str, Any], fields: Any, ranks: dict[str, int]
) -> None:
    """One left out, or their pictures swapped, is another picture."""
    fields = two(gallery, name, options, **fields)
    expected = gallery.stock(name, **fields)
    equal(gallery.drawn(name, **fields), expected)
    equal(gallery.drawn(name, **fields, **ranks), expected)
    differ(gallery.drawn(name, **fields | {"control": fields["control"][::-1]}), expected)
    alone = {n: x[0] if isinstance(x, tuple) else x for n, x in fields.items()}
    differ(gallery.drawn(name, **alone), expected)


@pytest.mark.parametrize(("name", "options"), [("sd15", PLAIN), ("flux", UNION)])
def test_one_may_follow_several_pictures(
    gallery: Gallery, name: str, options: dict[str, Any]
) -> None:
    """It is loaded once; of a union each picture has a kind.

    Diffusers takes numbers for all of one FLUX ControlNet for those of its first picture alone.
    """
    fields = two(gallery, name, options, controlnet=gallery.controlnet(name, **options))
    if options:
        whole = {"control_guidance_start": (0.0, 0.0), "control_guidance_end": (1.0, 1.0)}
        fields |= {"control_mode": (1, 2), **whole}
    expected = gallery.stock(name, **fields)
    equal(gallery.drawn(name, **fields, workers=2), expected)
    one = fields | {"control": fields["control"][0], "controlnet_conditioning_scale": 0.5}
    one |= {"control_mode": 1} if options else {}
    one |= {"control_guidance_start": 0.0, "control_guidance_end": 1.0}
    differ(gallery.drawn(name, **one), expected)
    several, alone = (plan(gallery.spec(name, **each)) for each in (fields, one))
    assert several.estimate.weights == alone.estimate.weights
    assert several.cost.stages[0].kinds[0].flops > alone.cost.stages[0].kinds[0].flops


def test_ones_of_other_layouts_are_added_as_each_alone_would_be(gallery: Gallery) -> None:
    """One that sees latents and one that sees pixels, which has no features of single blocks."""
    pixels, latents = (guided(gallery, "flux", options) for options in (PIXELS, PLAIN))
    fields = {name: (latents[name], pixels[name]) for name in latents}
    both = gallery.drawn("flux", **fields)
    equal(gallery.drawn("flux", **fields, workers=3), both)
    for strengths, alone in (((1.0, 0.0), latents), ((0.0, 1.0), pixels)):
        told = {"controlnet_conditioning_scale": strengths}
        equal(gallery.drawn("flux", **fields | told), gallery.drawn("flux", **alone))
        differ(gallery.drawn("flux", **alone), both)


# A canvas of twice the trained 128 pixels.
LARGER = {"height": 256, "width": 128, "num_inference_steps": 5, "guidance_scale": 5.0}
PLAIN_NETWORK = {"raunet": False, "windows": False}


@pytest.fixture
def deep(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> Gallery:
    """The gallery with layouts that have all the levels of their published U-Nets."""
    for name in ("sdxl-deep", "sd15-deep"):
        monkeypatch.setitem(LAYOUTS, name, LARGER | {"max_sequence_length": None})
    return gallery


def on_a_smaller_map(forward: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    """As HiDiffusion's code runs a ControlNet: at the trained size, its features enlarged."""
    size = (x.shape[-2] // 2, x.shape[-1] // 2)
    picture = F.interpolate(kwargs.pop("controlnet_cond"), size=(8 * size[0], 8 * size[1]))
    down, middle = forward(F.interpolate(x, size=size), *args, controlnet_cond=picture, **kwargs)
    return [_doubled(each) for each in down], _doubled(middle)


def _doubled(x: Tensor) -> Tensor:
    size = (2 * x.shape[-2], 2 * x.shape[-1])
    return F.interpolate(x, size=size, mode="bicubic")


@pytest.mark.parametrize("name", [pytest.param("sd15-deep", marks=pytest.mark.slow), "sdxl-deep"])
def test_with_hidiffusion_it_runs_at_the_trained_size(deep: Gallery, name: str) -> None:
    fields = guided(deep, name)
    pipeline = load(deep.checkpoint(name), fields)
    pipeline.controlnet.forward = partial(on_a_smaller_map, pipeline.controlnet.forward)
    arguments = deep.arguments(name) | fields | {"control_guidance_end": 0.7}
    latents, pixels = draw(pipeline, arguments)
    expected = Drawn(latents, np.uint8(np.round(np.clip(pixels, 0, 1) * 255)))
    fields |= {"method": "hidiffusion", "method_options": dict(PLAIN_NETWORK)}
    equal(deep.fresh(name, **fields, workers=3), expected)
    longer = {"method_options": {**PLAIN_NETWORK, "control": 1.0}}
    differ(deep.fresh(name, **fields | longer), expected)
    if name == "sd15-deep":
        equal(deep.fresh(name, **fields), expected)
        differ(deep.fresh(name, **fields | {"control": deep.grey(name)}), expected)


@pytest.mark.slow  # of two strides and pools, on ranks; at one step plain maps are held above
def test_with_hidiffusion_any_ranks_draw_the_same(deep: Gallery) -> None:
    options = {"schedule": "aggressive", "strided": 0.2, "pooled": 0.6}
    fields = guided(deep, "sdxl-deep", method="hidiffusion", method_options=options)
    alone = deep.fresh("sdxl-deep", **fields)
    equal(deep.fresh("sdxl-deep", **fields, workers=3), alone)
    differ(deep.fresh("sdxl-deep", **fields | {"controlnet_conditioning_scale": 0.5}), alone)
    plain = {"controlnet": None, "control": None}
    plans = (plan(deep.spec("sdxl-deep", **fields | each)) for each in ({}, plain))
    with_it, without = plans
    assert with_it.estimate.weights > without.estimate.weights
    assert with_it.cost.stages[0].kinds[0].flops > without.cost.stages[0].kinds[0].flops


# FLUX's is encoded anew, of U-Nets pixels are kept.
@pytest.mark.parametrize(
    ("name", "is_one"),
    [pytest.param("sdxl", True, marks=pytest.mark.slow), ("sdxl", False), ("flux", True)],
)
def test_a_stopped_render_goes_on_without_the_picture(
    gallery: Gallery, name: str, is_one: bool, tmp_path: Path
) -> None:
    fields = guided(gallery, name) if is_one else two(gallery, name)
    pictures = (fields["control"],) if is_one else fields["control"]
    copies = tuple(str(shutil.copy(each, tmp_path / f"{i}.png")) for i, each in enumerate(pictures))
    out = tmp_path / "a.zarr"
    stop_after(gallery.spec(name, **fields | {"control": copies}, out=str(out)), 1)
    for copy in copies:
        Path(copy).unlink()
    resume(out)
    drawn = gallery.opened(name, out)
    assert np.array_equal(drawn.pixels_THWC, gallery.drawn(name, **fields).pixels_THWC)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sdxl", PLAIN),
        ("flux", PLAIN),
        pytest.param("flux", PIXELS, marks=pytest.mark.slow),
    ],
)
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
        ({"controlnet": None, "control": None, "guess_mode": True}, "guess_mode is for a contr"),
        ({"control_guidance_start": 1.0}, "not before control_guidance_end 1"),
        ({"strategy": "tiles"}, "strategy 'tiles'|tiles"),
    ]
    for changes, told in cases:
        with pytest.raises(FriezeError, match=told) as error:
            plan(gallery.spec("sdxl", **fields | changes))
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 1200


def test_numbers_of_several_are_one_for_all_or_one_for_each(gallery: Gallery) -> None:
    fields = two(gallery, "sdxl")
    nets, pictures = fields["controlnet"], fields["control"]
    three = (*pictures, pictures[0])
    cases: list[tuple[dict[str, Any], str]] = [
        ({"control": three}, "controlnet is given 2 times, and control 3 times"),
        ({"controlnet_conditioning_scale": (0.1,) * 3}, "scale is given 3 times, and controlnet 2"),
        ({"control_guidance_end": ()}, "control_guidance_end is given 0 times"),
        ({"control_guidance_start": (0.0, 1.0)}, "start 1 is not before control_guidance_end 1"),
        ({"control_mode": (None, 1)}, "control_mode 1 is for a union"),
        ({"controlnet": (nets[0], guided(gallery, "flux")["controlnet"])}, "is a .FluxControlNet"),
        ({"control": (pictures[0], "no.png")}, "no.png"),
        ({"control": ()}, "follows a picture"),
        ({"controlnet": nets * 9, "control": pictures * 9}, "at most 16"),
        ({"controlnet_conditioning_scale": (0.1, -1)}, "scale.1 = -1: "),
        ({"controlnet_conditioning_scale": (True, 0.5)}, "a switch where none is"),
    ]
    for changes, told in cases:
        with pytest.raises(FriezeError, match=told) as error:
            plan(parse(gallery.spec("sdxl").model_dump(exclude_unset=True) | fields | changes))
        assert "\n" not in str(error.value)
    # One value is that of all.
    shared = plan(gallery.spec("sdxl", **fields | {"controlnet_conditioning_scale": 0.4}))
    assert [each.scale for each in shared.guidance.controls] == [0.4, 0.4]


def test_a_store_of_one_is_told_as_it_was_before_there_were_several(gallery: Gallery) -> None:
    """Its spec, identity, arrays and command have values, no lists; of several they have lists."""
    fields = guided(gallery, "sdxl", controlnet_conditioning_scale=0.5)
    one, several = (plan(gallery.spec("sdxl", **f)) for f in (fields, two(gallery, "sdxl")))
    picture, about = one.spec.picture(), identity(one)
    assert picture["controlnet"] == fields["controlnet"]
    assert (picture["control_guidance_end"], picture["control_mode"]) == (1.0, None)
    assert about["picture"]["controlnet_conditioning_scale"] == 0.5
    assert not {"control_guidance_start", "control_mode"} & about["picture"].keys()
    assert isinstance(about["controlnet"], str)
    assert about["starts_from"].keys() == {"control"}
    assert store_layout(one).latents[-1].shape == (1, 3, 1, 128, 64)
    assert parse(picture).picture() == picture
    assert identity(several)["starts_from"].keys() == {"control", "control-1"}
    assert len(identity(several)["controlnet"]) == 2
    assert store_layout(several).latents[-1].shape == (1, 6, 1, 128, 64)
    told = command(published({"picture": several.spec.picture()})["picture"], "a")
    assert told.count("--controlnet sdxl-") == told.count("--control ") == 2
    assert "--controlnet-conditioning-scale 0.5 --controlnet-conditioning-scale 0.8" in told


def test_what_flux_cannot_follow_is_refused_in_one_line(gallery: Gallery, tmp_path: Path) -> None:
    fields = guided(gallery, "flux")
    union = guided(gallery, "flux", UNION)["controlnet"]
    wide = str(build_controlnet(gallery.checkpoint("flux"), tmp_path / "w", num_attention_heads=4))
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("flux", {"controlnet": guided(gallery, "sdxl")["controlnet"]}, "is a .ControlNetModel"),
        ("flux", {"guess_mode": True}, "guess_mode is for a controlnet of a U-Net"),
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
    values = {"control_mode": 1, "control_guidance_start": 0.5, "control_guidance_end": 0.5}
    for own, value in (values | {"controlnet_conditioning_scale": 0.5}).items():
        none = {"controlnet": None, "control": None, own: value}
        with pytest.raises(FriezeError, match=f"{own} {value:g} is for a controlnet; name one"):
            plan(gallery.spec("flux", **fields | none))
