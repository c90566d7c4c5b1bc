"""What decides the last bits of a picture beside its spec: recorded, and compared on a resume.

The same steps give the same bytes on the same processor or GPU with the same libraries, threads
and kernels of attention. Elsewhere they give them to rounding, which is no reason not to go on,
but one to say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..journal.journal import Journal


# One rank's: {name: value}, of what is known.
Numerics = Mapping[str, Any]


EVENT = "numerics"


MOST_LETTERS = 60  # of a value in a message


def record(journal: Journal, ranks: Sequence[Numerics]) -> str:
    """Note the ranks' numerics in the journal, unless it has them.

    Returns one line on how they differ from those that drew before, or else from each other; ""
    where they do not, or where that was told before.
    """
    before = recorded(journal)
    if before and not _adds(before, ranks):
        return ""
    journal.append({"event": EVENT, "ranks": [dict(rank) for rank in ranks]})
    if found := differences(before, ranks):
        return f"drawn before with {told(found)}: the bytes agree to rounding only"
    if mixed := [f"{name} {_joined(ranks, name)}" for name in ranks[0] if _num(ranks, name) > 1]:
        return f"workers differ ({', '.join(mixed)}): bytes depend on who draws which rows"
    return ""


def recorded(journal: Journal) -> list[Numerics]:
    """The ranks' numerics that were noted last; none where none were."""
    found = [event.get("ranks") for event in journal.read() if event["event"] == EVENT]
    ranks = found[-1] if found else None
    return [rank for rank in ranks if isinstance(rank, dict)] if isinstance(ranks, list) else []


def differences(
    before: Sequence[Numerics], after: Sequence[Numerics]
) -> dict[str, tuple[str, str]]:
    """{name: (before, after)} of what is known of both and is not the same.

    Ranks of another number attend in other parts, and so with other kernels.
    """
    names = [name for name in (after[0] if after else ()) if _num(before, name)]
    if len(before) != len(after):
        names = [name for name in names if name != "attention"]
    pairs = {name: (_joined(before, name), _joined(after, name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def told(found: Mapping[str, tuple[str, str]]) -> str:
    """Differences in words."""
    return ", ".join(f"{name} {old}, not {new}" for name, (old, new) in found.items())


def _adds(before: Sequence[Numerics], after: Sequence[Numerics]) -> bool:
    return bool(differences(before, after)) or any(not _num(before, name) for name in after[0])


def _num(ranks: Sequence[Numerics], name: str) -> int:
    return len({str(rank[name]) for rank in ranks if name in rank})


def _joined(ranks: Sequence[Numerics], name: str) -> str:
    values = sorted({str(rank[name])[:MOST_LETTERS] for rank in ranks if name in rank})
    return " and ".join(values)


# What the names of arrays begin with in digests.
KEPT = "kept "
