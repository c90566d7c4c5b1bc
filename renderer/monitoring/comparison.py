"""Where two renders first differ, by the digests in their logs; or one, by what it drew twice.

What two renders take and make must be the same bits as long as they are drawn alike: the same
rows by each rank. Of other rows only what all ranks have is compared, as prompts are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import StoreError
from ..files.location import Location, location
from ..store import numerics
from ..store.numerics import KEPT
from ..store.store import Store
from . import run_log

HOW = "draw it with --trace-digests"


@dataclass(frozen=True)
class Sight:
    """A tensor as one rank of a render had it; stages and steps count from 1, 0 is the start."""

    store: str
    stage: int
    step: int
    rank: int
    name: str
    rows: tuple[int, int] | None
    digest: str
    rms: float | None

    @property
    def key(self) -> tuple[Any, ...]:
        """Sights of one key are of the same bits, where nothing went wrong."""
        if self.name.startswith(("weights of ", KEPT)):
            return (self.name, self.rows)
        if " of the " in self.name:  # a prompt or a first frame: one for all steps
            return (self.stage, self.name, self.rows)
        if self.name == "latents before":
            return (self.stage, self.step - 1, "latents", self.rows)
        return (self.stage, self.step, self.name, self.rows)

    def __str__(self) -> str:
        rms = "" if self.rms is None else f", rms {self.rms:.6g}"
        return f"{self.digest}{rms} on rank {self.rank} of {self.store}"


@dataclass(frozen=True)
class Comparison:
    """`first` are two sights of one tensor that differ, the earliest; None where none do.

    `num_compared` tensors were seen at least twice. `differs` are the numerics that do.
    """

    num_compared: int
    first: tuple[Sight, Sight] | None
    differs: Mapping[str, tuple[str, str]]

    def as_json(self) -> dict[str, Any]:
        """{"event": "comparison"} and the fields."""
        first = None if self.first is None else [asdict(each) for each in self.first]
        return {"event": "comparison", **asdict(self), "first": first}

    def __str__(self) -> str:
        more = f"; drawn with {numerics.told(self.differs)}" if self.differs else ""
        if self.first is None:
            return f"the same bits, in {self.num_compared} tensors that were seen twice{more}"
        one, other = self.first
        step = f"step {other.step}" if other.step else "the start"
        rows = "" if other.rows is None else f", rows {other.rows[0]} to {other.rows[1]}"
        where = f"{step} of stage {other.stage}, {other.name}{rows}"
        return f"first differ at {where}: {one}; {other}{more}"


def compare(first: str, second: str | None = None) -> Comparison:
    """Compare two stores that were drawn with digests, or what one of them drew more than once.

    Raises `StoreError` where there is no store, or no digests are in its log.
    """
    stores = [_store(path) for path in (first, second) if path is not None]
    sights = [sight for store in stores for sight in _sights(store)]
    found = [numerics.recorded(store.journal) for store in stores]
    differs = numerics.differences(*found) if len(found) == 2 else {}
    return Comparison(*_first(sights), differs)


def _first(sights: Sequence[Sight]) -> tuple[int, tuple[Sight, Sight] | None]:
    """How many tensors were seen more than once, and the earliest that differs."""
    by_key: dict[tuple[Any, ...], list[Sight]] = {}
    for sight in sights:
        by_key.setdefault(sight.key, []).append(sight)
    pairs = [pair for alike in by_key.values() for pair in _pair(alike)]
    # Of equal places the one that was taken first caused the others.
    place = {id(sight): index for index, sight in enumerate(sights)}
    pairs.sort(key=lambda pair: (pair[1].stage, pair[1].step, place[id(pair[1])]))
    return sum(len(alike) > 1 for alike in by_key.values()), pairs[0] if pairs else None


def _pair(alike: Sequence[Sight]) -> Iterator[tuple[Sight, Sight]]:
    """The first sight and the first that differs from it, if one does."""
    for sight in alike:
        if sight.digest != alike[0].digest:
            yield alike[0], sight
            return


def _store(path: str) -> Store:
    where: Location = location(path, StoreError)
    return Store.open(where)


def _sights(store: Store) -> list[Sight]:
    lines = [line for line in run_log.read(store.path) if line["event"] == "digests"]
    found = [sight for line in lines for sight in _of_line(str(store.path), line)]
    if not found:
        raise StoreError(f"{store.path} has no digests in its log; {HOW}")
    return found


def _of_line(store: str, line: Mapping[str, Any]) -> Iterator[Sight]:
    """The sights of one line of a log; what is none is passed over, as the log's reader does."""
    ranks = line.get("ranks")
    stage, step = (_whole(line.get(name)) for name in ("stage", "step"))
    for rank, tensors in enumerate(ranks if isinstance(ranks, list) else ()):
        for name, entry in tensors.items() if isinstance(tensors, dict) else ():
            match entry:
                case [str(digest), rows, rms]:
                    span = _span(rows)
                    size = rms if isinstance(rms, float) else None
                    yield Sight(store, stage, step, rank, name, span, digest, size)


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _span(rows: Any) -> tuple[int, int] | None:
    match rows:
        case [int(start), int(stop)]:
            return start, stop
    return None
