"""Why a verb of a fleet failed.

FleetError(RuntimeError)                 the fleet cannot start, or was used after its end
└── WorkerLostError(ConnectionError)     a rank died, hangs, or cannot be reached any more
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from .worker_host import RankLocation, Report


class FleetError(RuntimeError):
    """The fleet cannot start, or was used after its end."""


class WorkerLostError(FleetError, ConnectionError):
    """A rank died, hangs, or cannot be reached; `rank` names it (None if nobody could tell)."""

    def __init__(self, message: str, rank: int | None = None) -> None:
        super().__init__(message)
        self.rank = rank


def root_cause(
    verb: str,
    reports: Mapping[int, Report],
    waiting: Collection[int],
    places: Sequence[RankLocation],
    silence: str = "",
) -> Exception:
    """The error that started a verb's failure, not what followed from it.

    `reports` are the ranks' last words, in the order in which they arrived; `waiting` are the
    ranks that had said none when the failure was noticed; `silence` says how long nobody had
    reported, where that was the failure. The first of these that there is: a rank that was lost;
    a worker's own exception; a rank that has still said nothing; ranks that lost each other. Of
    several ranks it is the lowest.
    """
    ranks = sorted(reports)
    for rank in ranks:
        if (report := reports[rank]).kind == "lost":
            lost = WorkerLostError(f"{places[rank]} was lost in {verb!r}: {report.value}", rank)
            return _noted(lost, report.trace)
    for rank in ranks:
        if (report := reports[rank]).is_cause:
            return _noted(report.value, f"raised in {verb!r} on {places[rank]}", report.trace)
    why = silence or "; ".join(str(reports[rank].value) for rank in ranks if reports[rank].is_echo)
    for rank in sorted(set(waiting) - reports.keys()):
        return WorkerLostError(f"{places[rank]} hangs in {verb!r}: {why}", rank)
    # Whom the first echo blames; after a silence it only echoes that the driver broke the group.
    first = next(iter(reports.values()), None)
    blamed = first.blames if first is not None and not silence else None
    return WorkerLostError(f"ranks lost each other in {verb!r}: {why}", blamed)


def _noted(error: Exception, *notes: str) -> Exception:
    for note in filter(None, notes):
        error.add_note(note)
    return error
