"""The arrays of one store, read as the journal has them.

What the journal says of a file must be true of it: no file is taken for another, or for what it was
before or will be later.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import StoreError
from ..journal.inventory import Inventory
from ..journal.journal import Journal
from .arrays import DOCUMENT, ArraySlices, ZarrArray, document_array, keys_of, open_array, read
from .chunk_keys import LATENTS, digests, of_slot
from .layout import LatentArray, StoreLayout
from .zarr_bucket import Digests

if TYPE_CHECKING:
    from .directory import StoreDirectory


class ArrayReader:
    """Safe to share between threads: what it remembers of the journal is only ever replaced."""

    def __init__(
        self,
        directory: StoreDirectory,
        layout: StoreLayout,
        documents: Mapping[str, dict[str, Any]],
        journal: Journal,
    ) -> None:
        """`documents` are what every zarr.json must say, empty where nobody wrote that down."""
        self.directory = directory
        self.layout = layout
        self.documents = documents
        self.journal = journal
        self._known = Inventory()
        self._digests: dict[str, Digests] = {}

    @cached_property
    def pixels(self) -> tuple[ZarrArray, ...]:
        """The levels of the pyramid."""
        return tuple(self.open(str(i)) for i in range(self.layout.num_levels))

    @cached_property
    def saved(self) -> tuple[ZarrArray, ...]:
        """The arrays of latents."""
        return tuple(self.open(f"{LATENTS}/{array.name}") for array in self.layout.latents)

    def inventory(self) -> Inventory:
        """What the journal says now."""
        if (known := self.journal.inventory()) is not self._known:
            self._known, self._digests = known, {}
        return known

    def read(self, name: str, array: ZarrArray, region: ArraySlices) -> np.ndarray:
        """Read a region of an array, "0" or "frieze/latents/0".

        The journal is read anew where what is known of it is too old. Raises `StoreError` where a
        file is missing or damaged.
        """
        digests = self.expected(name)
        if not digests.keys() >= set(keys_of(array, region)):
            digests = self.expected(name, anew=True)
        try:
            return read(array, self.directory / name, region, digests)
        except StoreError:
            if (newer := self.expected(name, anew=True)) == digests:
                raise
        return read(array, self.directory / name, region, newer)

    def joined(self, array: LatentArray, slot: int, parts: Iterable[Mapping[int, str]]) -> str:
        """Digests of all files of a slot, of which several writers wrote some each."""
        found = {number: digest for part in parts for number, digest in part.items()}
        if len(found) != len(of_slot(array, slot)):
            raise StoreError(f"{self.directory / LATENTS / array.name} was not written whole")
        return "".join(found[number] for number in sorted(found))

    def damaged_documents(self) -> dict[str, str]:
        """{name: what is wrong} of every zarr.json that is not what was written."""

        def look(name: str) -> str:
            return _difference(self.directory.read(name), self.documents[name])

        names = list(self.documents)
        found = zip(names, self.directory.each(look, names), strict=True)
        return {name: reason for name, reason in found if reason}

    def expected(self, name: str, *, anew: bool = False) -> Digests:
        """Digests of an array's files, as the journal was when it was read last."""
        if anew or not self._digests:
            self.inventory()
        known = self._digests
        if name not in known:
            known[name] = digests(self.layout, self._known, name)
        return known[name]

    def open(self, name: str) -> ZarrArray:
        """An array by its name, "0" or "frieze/latents/0"."""
        if self.documents:
            return document_array(self.directory / name, self.documents[f"{name}/{DOCUMENT}"])
        return open_array(self.directory / name)


def _difference(data: bytes | None, document: Mapping[str, Any]) -> str:
    """What is wrong with a zarr.json; empty where it says what it should."""
    if data is None:
        return "is missing"
    try:
        is_same = json.loads(data) == document
    except (ValueError, RecursionError):
        is_same = False
    return "" if is_same else "is not what was written there"
