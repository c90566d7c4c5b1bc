"""Options of methods: read by kind, within range, or refused with what would work."""

from __future__ import annotations

from typing import Any

import pytest

from frieze.renderer.errors import SpecError
from frieze.renderer.spec.method_options import Option, read
from frieze.renderer.spec.render_spec import RenderSpec

DEFAULTS = {
    "switch": True,
    "number": 0.5,
    "whole": 2,
    "word": Option("pi", choices=("pi", "ntk")),
    "unset": Option(None, "number", above=0, most=2),
    "wholes": Option((), "wholes", least=0),
    "numbers": Option((1.0,), "numbers"),
}


def found(**given: Any) -> dict[str, Any]:
    return read(RenderSpec(method="some", method_options=given), DEFAULTS)


def test_what_the_spec_leaves_out_is_the_default() -> None:
    expected = {n: o.default if isinstance(o, Option) else o for n, o in DEFAULTS.items()}
    assert found() == expected
    assert found(number=None) == expected


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("switch", False, False),
        ("number", 2, 2.0),
        ("number", "0.25", 0.25),
        ("whole", 3.0, 3),
        ("word", "ntk", "ntk"),
        ("unset", 2, 2.0),
        ("wholes", [8, 9], (8, 9)),
        ("wholes", "8,9", (8, 9)),
        ("wholes", 9, (9,)),
        ("numbers", [87, 121.5], (87.0, 121.5)),
    ],
)
def test_values_are_read_as_their_kind(name: str, given: Any, expected: Any) -> None:
    value = found(**{name: given})[name]
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("switch", 1, "true or false"),
        ("number", "much", "a number"),
        ("number", True, "a number"),
        ("number", float("nan"), "a number"),
        ("number", float("inf"), "a number"),
        ("number", [1], "a number"),
        ("whole", 1.5, "a whole number"),
        ("whole", 10**400, "a whole number"),
        ("word", 3, "a word"),
        ("word", "ntx", "pi or ntk .the nearest is 'ntk'"),
        ("unset", 0, "more than 0"),
        ("unset", 3, "2 or less"),
        ("wholes", [1, -1], "0 or more"),
        ("wholes", "8;9", "a list of whole numbers"),
        ("numbers", {"a": 1}, "a list of numbers"),
    ],
)
def test_a_value_of_another_kind_or_range_is_refused(name: str, given: Any, message: str) -> None:
    with pytest.raises(SpecError, match=f"option {name} of some = .*{message}"):
        found(**{name: given})


def test_an_unknown_option_is_refused_with_the_nearest() -> None:
    with pytest.raises(SpecError, match="method some has no option 'numbre'; the nearest is 'numb"):
        found(numbre=1)
    with pytest.raises(SpecError, match="method some takes no options, but 'x' is given"):
        read(RenderSpec(method="some", method_options={"x": 1}), {})
