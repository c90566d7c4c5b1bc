"""Whether all of a store is what was written into it, and making up for what is not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...errors import StoreError
from ...files.location import S3Path, location
from ..directory import holds_store, store_directory
from ..store import Store
from .losses import Damage, examine

RUN_FILE = "frieze/run.json"


@dataclass(frozen=True)
class Verification:
    """What is damaged in a store; `num_files` were read. `is_sealed`: a changed bit is seen."""

    path: str
    num_files: int
    damage: Sequence[Damage]
    is_sealed: bool

    @property
    def is_whole(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damage

    def as_json(self) -> dict[str, Any]:
        """{"event": "verify", "is_whole": ...} and the fields."""
        return {"event": "verify", "is_whole": self.is_whole, **asdict(self)}

    def __str__(self) -> str:
        rows = list(map(str, self.damage))
        if self.damage:
            many = "1 thing is" if len(self.damage) == 1 else f"{len(self.damage)} things are"
            rows.append(
                f"{self.path}: {many} damaged; make up for it with: frieze resume {self.path}"
            )
            if not all(each.again for each in self.damage):
                rows[-1] = f"{self.path}: {many} damaged; restore it from a copy or draw it again"
        else:
            rows.append(f"{self.path}: whole, {self.num_files} files")
        if not self.is_sealed:
            rows.append("it was made before checksums: what was changed in it may not be seen")
        return "\n".join(rows)


def verify(path: str | os.PathLike[str] | S3Path) -> Verification:
    """Read all of the store at `path` and say what is damaged; disturbs nobody, and mends nothing.

    Raises `StoreError` where there is no store, or one that leads elsewhere.
    """
    where = location(path, StoreError)
    store_directory(where).check_files()
    try:
        store = Store.open(where, mends=True)
    except StoreError as error:
        if not holds_store(where):
            raise
        return Verification(str(path), 1, [Damage(RUN_FILE, f"cannot be used ({error})")], True)
    size, found = store.journal.size, examine(store)
    while found.damage and store.journal.size != size:  # it is drawn: was it only another by now?
        size, found = store.journal.size, examine(store)
    return Verification(str(path), found.num_files, found.damage, store.journal.is_sealed)


def mend(store: Store) -> list[Damage]:
    """Take what is damaged out of the journal, so that a resume does it again; returns what was.

    Its driver's alone to call. Raises `StoreError` where it cannot be done again.
    """
    found = examine(store)
    if hopeless := [each for each in found.damage if not each.again]:
        raise StoreError(f"{store.path}: {hopeless[0]}; restore it from a copy or draw it again")
    store.write_documents(found.names)
    if event := found.event():
        store.journal.append(event)
    return found.damage


def told(damage: Sequence[Damage]) -> list[str]:
    """What a resume says of what it mends: a line for each thing that it does again."""
    names: dict[tuple[str, str], list[str]] = {}
    for each in damage:
        names.setdefault((each.reason, each.again), []).append(each.name)
    return [
        f"{found[0]} {reason}{f' ({len(found) - 1} more files too)' if found[1:] else ''}: {again}"
        for (reason, again), found in names.items()
    ]
