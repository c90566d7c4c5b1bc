"""Input that nobody meant is accepted or refused in one line, whatever its kind; see `fuzzing`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import strategies as st

from frieze.renderer.errors import SpecError
from support.fuzz_kinds import NAMES, kinds
from support.fuzzing import Kind, Tally, tallies, tally

FEW, MANY = 30, 10_000
FEWEST = 6  # of a kind that costs much: one of them is accepted


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Kind]]:
    """The kinds by name; the working folder is theirs."""
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield {kind.name: kind for kind in kinds(folder)}


def test_every_kind_is_tried(known: dict[str, Kind]) -> None:
    assert tuple(known) == NAMES


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", NAMES)
def test_no_input_of_a_kind_ends_in_a_traceback(known: dict[str, Kind], name: str) -> None:
    number = max(FEW, FEWEST * known[name].cost)
    found = tally(known[name], number)
    assert found.tried >= number // known[name].cost
    assert found.accepted > 0, "no example is any good: nothing behind the first check was tried"
    assert found.one_line > 0
    assert not found.faults, found.told()


@pytest.mark.slow
@pytest.mark.timeout(14_400)
@pytest.mark.parametrize("name", NAMES)
def test_no_input_of_many_ends_in_a_traceback(known: dict[str, Kind], name: str) -> None:
    found = Tally(name)
    for round_ in tallies(known[name], MANY):
        found += round_
    print(found.row())
    assert found.tried >= MANY
    assert not found.faults, found.told()


def test_control_a_fault_is_seen_and_so_is_a_line_that_is_none() -> None:
    def act(number: int) -> None:
        if number % 3 == 1:
            raise SpecError("a line")
        if number % 3 == 2:
            error = SpecError()
            error.args = ("two\nlines",)
            raise error
        raise KeyError(number)

    found = tally(Kind("control", st.integers(0, 2), act), 3)
    assert (found.accepted, found.one_line, len(found.faults)) == (0, 1, 2)
    assert "KeyError at test_fuzz.py" in found.told()
