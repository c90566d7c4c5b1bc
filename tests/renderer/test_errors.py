"""Messages of errors: one printable line, bounded, whatever is in them."""

from __future__ import annotations

import pickle

import pytest

from frieze.renderer import errors
from frieze.renderer.errors import MOST_LETTERS, FriezeError, first_line, line, reason, shown


def tree() -> list[type[FriezeError]]:
    found = [vars(errors)[name] for name in dir(errors) if name.endswith("Error")]
    return [kind for kind in found if issubclass(kind, FriezeError)]


@pytest.mark.parametrize("kind", tree())
def test_any_error_is_one_printable_line_and_survives_a_trip(kind: type[FriezeError]) -> None:
    error = kind("a \x1b[2J\n\n\tb\u2028c \udcff \u202e " + 9000 * "x" + " use d")
    assert str(error).isprintable()
    assert str(error).startswith(r"a \x1b[2J b c \udcff \u202e x")
    assert str(error).endswith("x use d")
    assert len(str(error)) <= MOST_LETTERS
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_what_is_printable_stays_as_it_is() -> None:
    told = "'Über  den Bergen 山' needs 2 × 3 px; finish with: frieze resume 'a  b.zarr'"
    assert line(told) == told


def test_values_are_shown_short() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert shown(10**5000) == "a whole number of about 5001 digits"
    assert shown("a red sun") == "'a red sun'"
    assert max(len(shown(value)) for value in ("x" * 9999, endless, {"a": [endless] * 999})) < 200


@pytest.mark.parametrize(
    ("error", "whole", "first"),
    [
        (ValueError("a\n b\x1b"), r"a b\x1b", "a"),
        (ValueError("\n"), "ValueError", "ValueError"),
        (OSError(), "OSError", "OSError"),
        (KeyError("x"), "'x'", "'x'"),
    ],
)
def test_an_error_of_others_is_a_part_of_a_line(error: Exception, whole: str, first: str) -> None:
    assert (reason(error), first_line(error)) == (whole, first)
    assert reason(ValueError(9000 * "x"), 200) == 200 * "x"
