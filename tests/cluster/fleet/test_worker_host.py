"""A rank's side of a fleet: what it reports of an error."""

from __future__ import annotations

import itertools

import pytest

from frieze.cluster.comm import RankLostError
from frieze.cluster.fleet import failure


def chain(*errors: Exception) -> Exception:
    """Errors of which each came while the next was handled; gives the first."""
    for error, context in itertools.pairwise(errors):
        error.__context__ = context
    return errors[0]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_errors_that_lead_back_to_themselves_are_reported(length: int) -> None:
    """One error that several ranks raise again gets the contexts of them all."""
    errors = [ValueError(str(number)) for number in range(length)]
    error = chain(*errors)
    errors[-1].__context__ = errors[0]
    report = failure(error)
    assert (report.kind, report.value, report.is_echo) == ("error", error, False)


def test_control_a_lost_rank_is_found_along_the_chain() -> None:
    lost = RankLostError("rank 2 is gone", rank=2)
    report = failure(chain(ValueError("a"), KeyError("b"), lost))
    assert (report.is_echo, report.blames) == (True, 2)
