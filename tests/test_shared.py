"""No test is held to what another made of a renderer that it had changed, whatever comes first."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

from frieze.renderer.worker import upsampling
from support.poison import nan_filled
from support.shared import Once, kept, patched

LONG = 5.0


@functools.cache
def kept_by_a_plain_cache() -> float:
    return LONG


@kept
def kept_of_what_is_whole() -> float:
    return LONG


def test_a_reference_is_not_made_of_what_a_test_has_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    once = Once()
    assert once("before", lambda: LONG) == LONG
    monkeypatch.setattr("test_shared.LONG", 7.0, raising=False)
    monkeypatch.setitem(globals(), "LONG", 7.0)
    assert once("before", lambda: LONG) == 5.0
    for ask in (lambda: once("after", lambda: LONG), kept_of_what_is_whole):
        with pytest.raises(AssertionError, match=r"before .*LONG is replaced"):
            ask()
    assert kept_by_a_plain_cache() == 7.0  # the control: for all who come later
    monkeypatch.undo()
    assert not patched()
    assert kept_of_what_is_whole() == 5.0


def test_memory_of_not_a_number_counts_as_replaced() -> None:
    with nan_filled():
        assert "torch.empty" in patched()
    assert not patched()


@pytest.mark.parametrize("number", range(2))
def test_what_the_renderer_keeps_is_not_kept_of_a_changed_one(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Whichever of the two comes first, the other finds nothing of it."""
    assert upsampling.weights.cache_info().currsize == 0
    monkeypatch.setattr("torch.nn.functional.interpolate", lambda x, **_: x)
    assert upsampling.weights(4, 4)[0, 0] == 1


def test_every_shared_reference_is_kept_so() -> None:
    """Not by a cache that keeps whatever was there when it was first asked."""
    tests = Path(__file__).parent
    # They keep texts of files, or are what is tested.
    allowed = {"conftest.py", "shared.py", "test_shared.py", "test_parking.py", "test_rules.py"}
    files = [file for file in tests.rglob("*.py") if file.name not in allowed]
    plain = re.compile(r"functools\.cache\b|lru_cache|import cache\b")
    found = [file for file in files if plain.search(file.read_text()) and "bench" not in file.parts]
    assert not found, "use shared.kept or shared.Once: what is made must be of a whole renderer"
