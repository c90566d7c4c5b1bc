"""Of a failed verb the root cause is raised, whatever the ranks reported and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from frieze.cluster.fleet import RankLocation, Report, WorkerLostError, root_cause

PLACES = [RankLocation(rank, "n", 100 + rank, "cpu") for rank in range(3)]
SILENCE = "no rank reported for 9 s"
Cases = dict[str, tuple[dict[int, Report], set[int], str, str, int | None]]


def own(text: str, trace: str = "") -> Report:
    """A worker's own exception."""
    return Report("error", KeyError(text), trace=trace)


def echo(text: str, blames: int | None = None) -> Report:
    """An error that only says that another rank was lost."""
    return Report("error", ConnectionError(text), is_echo=True, blames=blames)


def lost(text: str, trace: str = "") -> Report:
    """A rank that is gone."""
    return Report("lost", text, trace=trace)


DONE = Report("done")
ALL = {0, 1, 2}

# Reports in the order of arrival, ranks waited for, silence; the error's text and the rank blamed.
LOST: Cases = {
    "lost alone": ({1: lost("died")}, {1}, "", "rank 1 .* was lost in 'step': died", 1),
    "lost, others wait": ({1: lost("died")}, ALL, "", "rank 1 .* was lost .*died", 1),
    "lost after echoes": ({0: echo("a", 2), 2: lost("d")}, ALL, "", "rank 2 .* lost .*d", 2),
    "lost before an own error": ({0: own("x"), 2: lost("d")}, ALL, "", "rank 2 .* was lost", 2),
    "two are lost": ({2: lost("b"), 0: lost("a")}, ALL, "", "rank 0 .* was lost .*a", 0),
    "lost after a silence": ({1: lost("died")}, ALL, SILENCE, "rank 1 .* was lost .*died", 1),
    "lost, one is done": ({0: DONE, 1: lost("d")}, {1, 2}, "", "rank 1 .* was lost", 1),
    "one hangs": ({0: echo("a"), 2: echo("b")}, ALL, "", "rank 1 .* hangs in 'step': a; b", 1),
    "two hang": ({0: echo("a", 2)}, ALL, "", "rank 1 .* hangs in 'step': a$", 1),
    "hangs, one was done before": ({0: echo("a", 1)}, {0, 2}, "", "rank 2 .* hangs .*: a", 2),
    "all hang": ({}, ALL, SILENCE, f"rank 0 .* hangs in 'step': {SILENCE}", 0),
    "the last one hangs": ({}, {2}, SILENCE, "rank 2 .* hangs .* no rank", 2),
    "hangs, others echo": ({0: echo("a", 1), 1: echo("b")}, ALL, SILENCE, "rank 2 .*no rank", 2),
    "hangs, others are done": ({0: DONE, 1: DONE}, ALL, SILENCE, "rank 2 .* hangs", 2),
    "echoes blame a rank": ({0: echo("a", 2)}, {0}, "", "lost each other in 'step': a", 2),
    "echoes blame nobody": ({0: echo("a"), 1: echo("b", 0)}, {0, 1}, "", "each other.*a; b", None),
    "the first to arrive blames": ({1: echo("b", 0), 0: echo("a", 1)}, {0, 1}, "", "a; b", 0),
    "echoes after a silence": ({0: echo("a", 1)}, {0}, SILENCE, f"each other .*{SILENCE}$", None),
    "done after a silence": ({0: DONE}, {0}, SILENCE, f"each other in 'step': {SILENCE}", None),
}


@pytest.mark.parametrize("case", LOST.values(), ids=LOST)
def test_a_lost_rank_is_named(case: Any) -> None:
    reports, waiting, silence, text, rank = case
    error = root_cause("step", reports, waiting, PLACES, silence)
    assert isinstance(error, WorkerLostError)
    assert error.rank == rank
    with pytest.raises(WorkerLostError, match=text):
        raise error


OWN: dict[str, tuple[dict[int, Report], set[int], str, int]] = {
    "alone": ({1: own("x")}, {1}, "", 1),
    "others wait": ({1: own("x")}, ALL, "", 1),
    "after echoes": ({0: echo("a", 1), 2: echo("b", 1), 1: own("x")}, ALL, "", 1),
    "before echoes": ({2: own("x"), 0: echo("a", 2)}, ALL, "", 2),
    "two of them": ({2: own("y"), 0: own("x")}, ALL, "", 0),
    "after a silence": ({2: own("x")}, ALL, SILENCE, 2),
    "one is done": ({0: DONE, 1: own("x")}, {1}, "", 1),
}


@pytest.mark.parametrize("case", OWN.values(), ids=OWN)
def test_a_workers_own_exception_is_raised_as_it_is_and_says_where(case: Any) -> None:
    reports, waiting, silence, rank = case
    error = root_cause("step", reports, waiting, PLACES, silence)
    assert error is reports[rank].value
    assert error.__notes__ == [f"raised in 'step' on {PLACES[rank]}"]


@pytest.mark.parametrize(
    "report", [own("x", "line 3"), lost("died", "line 3")], ids=["own", "lost"]
)
def test_a_remote_traceback_is_a_note(report: Report) -> None:
    assert root_cause("step", {0: report}, {0}, PLACES).__notes__[-1] == "line 3"
