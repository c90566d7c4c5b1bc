"""Options of methods: read by type, within range, or refused with what would work."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from frieze.renderer import plugins
from frieze.renderer.errors import SpecError
from frieze.renderer.extrapolation.frequency_correction import CorrectionOptions
from frieze.renderer.extrapolation.method_options import (
    Index,
    MethodOptions,
    Number,
    Positive,
    Several,
    Switch,
    Whole,
)
from frieze.renderer.methods import ultraimage
from frieze.renderer.spec.options import meaning
from frieze.renderer.spec.render_spec import RenderSpec


class Some(MethodOptions):
    switch: Switch = True
    number: Number = 0.5
    whole: Whole = 2
    word: Literal["pi", "ntk"] = "pi"
    text: str = ""
    unset: Positive | None = Field(default=None, le=2)
    part: float = Field(default=0.5, ge=0, lt=1)
    wholes: Several[Index] = ()
    numbers: Several[Number] = (1.0,)


DEFAULTS = {name: field.default for name, field in Some.model_fields.items()}


def found(**given: Any) -> Some:
    return Some.read(RenderSpec(method="some", method_options=given))


def test_what_the_spec_leaves_out_is_the_default() -> None:
    assert found().model_dump() == DEFAULTS
    assert found(number=None).model_dump() == DEFAULTS


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("switch", False, False),
        ("number", 2, 2.0),
        ("number", "0.25", 0.25),
        ("whole", 3.0, 3),
        ("whole", "4", 4),
        ("word", "ntk", "ntk"),
        ("text", "8,9", "8,9"),
        ("unset", 2, 2.0),
        ("wholes", [8, 9], (8, 9)),
        ("wholes", "8,9", (8, 9)),
        ("wholes", 9, (9,)),
        ("numbers", [87, 121.5], (87.0, 121.5)),
    ],
)
def test_values_are_read_as_their_type(name: str, given: Any, expected: Any) -> None:
    value = getattr(found(**{name: given}), name)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("switch", 1, "true or false"),
        ("switch", "true", "true or false"),
        ("number", "much", "a number"),
        ("number", True, "a number"),
        ("number", float("nan"), "a number"),
        ("number", float("inf"), "a number"),
        ("number", [1], "a number"),
        ("number", 1e7, "a number from -1e6 to 1e6"),
        ("whole", 1.5, "a whole number"),
        ("whole", True, "a whole number"),
        ("whole", 10**400, "a whole number"),
        ("word", 3, "pi or ntk"),
        ("word", [], "pi or ntk"),
        ("word", "ntx", "pi or ntk .the nearest is 'ntk'"),
        ("text", [3], "text"),
        ("unset", 0, "a number more than 0, up to 2"),
        ("unset", 3, "up to 2"),
        ("part", 1, "a number from 0, less than 1"),
        ("wholes", [1, -1], "a list of whole numbers from 0 to 1e6, as 8,9"),
        ("wholes", [1, [2]], "a list of whole numbers"),
        ("wholes", "8;9", "a list of whole numbers"),
        ("numbers", {"a": 1}, "a list of numbers"),
    ],
)
def test_a_value_of_another_type_or_range_is_refused(name: str, given: Any, message: str) -> None:
    with pytest.raises(SpecError, match=f"^option {name} of some = .*{message}") as caught:
        found(**{name: given})
    assert len(str(caught.value)) < 400


def test_a_list_without_end_is_refused() -> None:
    with pytest.raises(SpecError, match="option numbers of some has 1001 items; at most 1000"):
        found(numbers=[1] * 1001)


def test_an_unknown_option_is_refused_with_the_nearest() -> None:
    with pytest.raises(SpecError, match="method some has no option 'numbre'; the nearest is 'numb"):
        found(numbre=1)
    with pytest.raises(SpecError, match="method some has no option 'numbre'"):
        found(numbre=None)
    with pytest.raises(SpecError, match="method some has no option ''"):
        found(**{"": 1})
    with pytest.raises(SpecError, match="method some takes no options, but 'x' is given"):
        MethodOptions.read(RenderSpec(method="some", method_options={"x": 1}))


def test_what_was_detected_takes_the_place_of_the_wish() -> None:
    wish = CorrectionOptions(mode="detect", margin=0.9)
    settled = wish.with_detected((2, 3))
    assert (settled.ks, settled.choice, settled.margin) == ((2, 3), "dominant", 0.9)
    nothing = ultraimage.Options(mode="view", rdfc_mode="detect").with_detected(())
    assert (nothing.mode, nothing.choice, nothing.ks) == ("view", "none", ())
    with pytest.raises(SpecError, match="option ks of what was detected = -1"):
        wish.with_detected((-1,))


@pytest.mark.parametrize("name", plugins.names("methods"))
def test_every_option_says_what_it_is_and_its_default_is_one_that_works(name: str) -> None:
    options = getattr(plugins.load("methods", name), "Options", MethodOptions)
    properties = options.model_json_schema().get("properties", {})
    assert properties.keys() == options.model_fields.keys()
    for option, schema in properties.items():
        told = schema["description"]
        assert told.isprintable()
        assert "value" not in meaning(schema)
        default = options.model_fields[option].default
        assert default is not None or "; default: " in told, f"{option} of {name}: what if not?"
    values = {key: field.default for key, field in options.model_fields.items()}
    spec = RenderSpec(method=name, method_options=values)
    assert options.read(spec) == options()
    assert issubclass(options, BaseModel)
    for option in options.model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(options(), option, None)
