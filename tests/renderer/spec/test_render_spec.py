"""RenderSpec and its presets: what parses, what is refused and how, and what is frozen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ValidationError

from frieze.renderer.errors import SpecError
from frieze.renderer.spec.edits import Edit
from frieze.renderer.spec.presets import preset, preset_names
from frieze.renderer.spec.render_spec import RenderSpec, parse
from frieze.renderer.spec.roles import IN_MODEL, IN_WORK, PANELS, role


def test_every_field_states_one_role_and_its_flag_or_panel_follows() -> None:
    assert RenderSpec.roles().keys() == RenderSpec.model_fields.keys()
    assert {role.panel for role in RenderSpec.roles().values()} == {*PANELS, None}


def test_control_a_field_without_a_role_or_with_two_is_seen() -> None:
    class Wrong(BaseModel):
        silent: int = 0
        doubled: Annotated[int, IN_WORK, IN_MODEL] = 0

    for field in Wrong.model_fields.values():
        with pytest.raises(ValueError, match="values to unpack"):
            role(field)


def test_a_picture_is_the_fields_that_decide_pixels() -> None:
    decide = [name for name, role in RenderSpec.roles().items() if role.decides_pixels]
    assert list(RenderSpec().picture()) == decide


def test_a_field_that_came_later_has_a_default_that_says_what_was_before() -> None:
    later = {name for name, role in RenderSpec.roles().items() if role.came_later}
    spec = RenderSpec(seed=3)
    old = {name: value for name, value in spec.model_dump(mode="json").items() if name not in later}
    assert later
    assert parse(old) == spec


def test_where_a_picture_is_drawn_does_not_change_what_it_is() -> None:
    elsewhere = RenderSpec(out="b.tif", workers=5, local=True, timeout=3, chunk=64, dpi=72)
    assert elsewhere.picture() == RenderSpec().picture()
    assert RenderSpec(seed=1).picture() != RenderSpec().picture()


def test_every_field_tells_what_it_is() -> None:
    assert [n for n, field in RenderSpec.model_fields.items() if not field.description] == []


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RenderSpec().seed = 3  # type: ignore[misc]


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_parses(name: str) -> None:
    assert parse(preset(name)).prompt


def test_the_demo_preset_ships() -> None:
    assert "demo" in preset_names()


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ({"heigth": 64}, "the nearest is 'height'"),
        ({"num_steps": 3}, "the nearest is 'num_inference_steps'"),
        ({"stages": [{"strat": 0.5}]}, "the nearest is 'start'"),
        ({"edit": [{"mask": "a.png", "promt": "x"}]}, "the nearest is 'prompt'"),
    ],
)
def test_an_unknown_key_names_the_nearest(wrong: dict[str, Any], near: str) -> None:
    with pytest.raises(SpecError, match=near):
        parse(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": 8},
        {"height": "tall"},
        {"num_inference_steps": 0},
        {"num_inference_steps": 1001},
        {"guidance_scale": float("nan")},
        {"timeout": float("inf")},
        {"timeout": 0},
        {"seed": -1},
        {"seed": 2**63},
        {"workers": 0},
        {"bits": 12},
        {"dtype": "float8"},
        {"stages": []},
        {"stages": [{"scale": 1.5}]},
        {"stages": [{"start": 0}]},
        {"out": ""},
        *({"fps": fps} for fps in (0, -1, 1e300, float("nan"))),
        *({"dpi": dpi} for dpi in (0, 1e-300, 1e300, float("inf"))),
        *({"shift": shift} for shift in (0, -1, 1e308, float("nan"))),
        *({"height": height} for height in (-16, 2**70, 1e300, float("inf"))),
        {"num_frames": 10**12},
        {"prompt": "a sun \udcff"},
    ],
)
def test_a_value_out_of_range_is_refused_by_field_and_value(wrong: dict[str, Any]) -> None:
    (field,) = wrong
    with pytest.raises(SpecError) as caught:
        parse(wrong)
    assert str(caught.value).startswith(field)
    assert "\n" not in str(caught.value)


def test_an_edit_is_a_mapping_or_the_words_of_a_command() -> None:
    spec = parse({"edit": ["m.png=a = b", {"mask": "n=1.png", "prompt": "c"}], "edit_stage": 2})
    assert spec.edit == (Edit(mask="m.png", prompt="a = b"), Edit(mask="n=1.png", prompt="c"))
    assert parse(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"edit": ["m.png"]}, "edit.0 = 'm.png': it is not MASK=PROMPT, for example mask.png="),
        ({"edit": ["=a"]}, "it is not MASK=PROMPT"),
        ({"edit": ["m.png="]}, "it is not MASK=PROMPT"),
        ({"edit": [3]}, "it is not MASK=PROMPT"),
        ({"edit": [{"mask": "m.png"}]}, "edit.0.prompt"),
        ({"edit": [{"mask": "a\0", "prompt": "x"}]}, "no text in UTF-8"),
        ({"edit_stage": 2}, "edit_stage 2: there is no edit"),
        ({"edit_stage": 0, "edit": ["m.png=a"]}, "edit_stage = 0"),
    ],
)
def test_an_edit_that_says_too_little_is_one_line(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(SpecError, match=re.escape(reason)) as caught:
        parse(fields)
    assert "\n" not in str(caught.value)


def test_fields_that_came_later_do_not_change_what_was_begun_before_them() -> None:
    later = {name for name, role in RenderSpec.roles().items() if role.came_later}
    assert not later & RenderSpec().identity().keys()
    assert RenderSpec(edit=("m.png=a",)).identity()["edit"]  # type: ignore[arg-type]


def test_the_bounds_themselves_are_allowed() -> None:
    parse({"height": 16, "seed": 2**63 - 1, "stages": [{"scale": 1, "start": 1}]})
    parse({"num_inference_steps": 1000, "guidance_scale": 0, "bits": 16})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"a: [", "is not YAML"),
        (b"a: !!python/object:os.system x", "is not YAML"),
        (b"", "a mapping of fields works"),
        (b"- seed", "a mapping of fields works"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_broken_preset_file_is_one_clear_line(tmp_path: Path, text: bytes, reason: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(text)
    with pytest.raises(SpecError, match=reason) as caught:
        preset(str(path))
    assert "\n" not in str(caught.value)


def test_an_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(SpecError, match=r"'dmeo'; there are: .*demo"):
        preset("dmeo")


@pytest.mark.parametrize(
    ("fields", "bounds"),
    [({"workers": 4}, (4, 4)), ({"workers": "4"}, (4, 4)), ({"workers": "2..8"}, (2, 8))],
)
def test_workers_are_a_number_or_the_fewest_and_the_most(
    fields: dict[str, Any], bounds: tuple[int, int]
) -> None:
    spec = parse(fields)
    assert (spec.workers, spec.most_workers) == bounds
    assert parse(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"workers": "8..2"}, "the fewest come first"),
        ({"workers": "2..x"}, "'x'"),
        ({"workers": "..4"}, "workers = ''"),
        ({"workers": "2..4", "local": True}, "come and go on Ray only"),
    ],
)
def test_a_range_of_workers_that_is_none_is_refused(fields: dict[str, Any], part: str) -> None:
    with pytest.raises(SpecError, match=part):
        parse(fields)
