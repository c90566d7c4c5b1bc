"""Options of plugins: what is typed is read as what the option means."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import BaseModel

from frieze.renderer.errors import SpecError
from frieze.renderer.spec.options import checked_options


class Options(BaseModel):
    """One of each kind that text may be taken for."""

    title: str | None = None
    word: str = "a"
    kind: Literal["1", "2"] = "1"
    levels: int = 1


@pytest.mark.parametrize(
    ("typed", "text"), [(2026, "2026"), (1.5, "1.5"), (True, "true"), ("sun", "sun")]
)
@pytest.mark.parametrize("name", ["title", "word"])
def test_a_text_may_be_a_number(name: str, typed: object, text: str) -> None:
    assert getattr(checked_options(Options, {name: typed}, "export", "x"), name) == text


@pytest.mark.parametrize("given", [{"kind": 3}, {"levels": "many"}, {"levels": True}])
def test_other_options_take_what_they_took(given: dict[str, object]) -> None:
    (name,) = given
    with pytest.raises(SpecError, match=f"option {name} of x = "):
        checked_options(Options, given, "export", "x")
