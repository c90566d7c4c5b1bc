"""RenderSpec and its presets: what parses, what is refused and how, and what is frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from frieze.renderer.errors import SpecError
from frieze.renderer.spec.presets import preset, preset_names
from frieze.renderer.spec.render_spec import PLACE_FIELDS, RenderSpec, StageSpec, parse

# Adding, renaming or dropping a field is a change of the command line and of every preset.
PICTURE = [
    "prompt",
    "negative_prompt",
    "model",
    "revision",
    "variant",
    "lora",
    "lora_2",
    "quantization",
    "storage_dtype",
    "height",
    "width",
    "num_frames",
    "fps",
    "init",
    "strength",
    "image",
    "num_inference_steps",
    "guidance_scale",
    "guidance_scale_2",
    "true_cfg_scale",
    "max_sequence_length",
    "seed",
    "method",
    "method_options",
    "stages",
    "shift",
    "dtype",
    "bits",
]
PLACE = [
    "out",
    "overwrite",
    "workers",
    "max_workers",
    "local",
    "park",
    "address",
    "device",
    "guidance_ranks",
    "device_memory",
    "ulysses",
    "chunk",
    "save_every",
    "timeout",
    "wait",
    "trace_digests",
    "dpi",
]


def test_fields_are_these_and_no_others() -> None:
    assert list(RenderSpec.model_fields) == PICTURE + PLACE
    stage = ["scale", "start", "steps", "shift", "enlarge", "prompt", "guidance_scale"]
    assert list(StageSpec.model_fields) == stage


def test_picture_excludes_the_place_fields() -> None:
    assert set(PLACE) == PLACE_FIELDS
    assert list(RenderSpec().picture()) == PICTURE


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
    ],
)
def test_a_value_out_of_range_is_refused_by_field_and_value(wrong: dict[str, Any]) -> None:
    (field,) = wrong
    with pytest.raises(SpecError) as caught:
        parse(wrong)
    assert str(caught.value).startswith(field)
    assert "\n" not in str(caught.value)


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
