"""Words of a command line as values."""

from __future__ import annotations

import pytest

from frieze.renderer.errors import SpecError
from frieze.renderer.spec.merging import name_values, typed_values


def test_words_that_are_no_name_and_value_are_refused_without_the_value() -> None:
    assert name_values("--env", ["A=b=c", "B="], "A=1") == {"A": "b=c", "B": ""}
    for word in ("A", "=secret", "A B=secret"):
        with pytest.raises(SpecError, match="is not NAME=VALUE, for example A=1") as caught:
            name_values("--env", [word], "A=1", r"[A-Z]+")
        assert "secret" not in str(caught.value)


def test_a_name_that_is_given_twice_is_refused() -> None:
    with pytest.raises(SpecError, match="--option 'quality' is given twice; use one"):
        typed_values("--option", ["quality=90", "quality=95"], "quality=95")
