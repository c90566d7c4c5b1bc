"""Previews of a picture while it is drawn, of the newest state in its store."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...errors import StoreError
from ...store.store import Store
from ...viewer.latent_preview import ColourFit, fit, key_of, preview
from ...viewer.tiles import TileCache, TilePyramid

CACHE_BYTES = 2**24


class PreviewColours:
    """What the latents of some weights look like, by pictures that were drawn of them."""

    def __init__(self) -> None:
        self._fits: dict[tuple[str, str, int], ColourFit] = {}
        self._turn = threading.Lock()

    def of(self, store: Store, finished: Iterable[Path]) -> ColourFit | None:
        """The colours for a store, by those of `finished` ones; None where none are alike."""
        key = key_of(store)
        if key is None:
            return None
        with self._turn:
            for path in finished if key not in self._fits else ():
                found = _fit(path, key)
                if found is not None:
                    self._fits[key] = found
                    break
            return self._fits.get(key)


class PartialImages:
    """Up to `most` previews of one picture, evenly over its steps."""

    def __init__(self, store: Path, most: int, colours: PreviewColours) -> None:
        self.count = 0
        self._path, self._most, self._colours = store, most, colours

    def is_due(self, progress: Mapping[str, Any]) -> bool:
        """Whether the next one is, by what a job tells of a step."""
        if self.count >= self._most or "num_steps" not in progress:
            return False
        stages, stage = progress.get("num_stages", 1), progress.get("stage", 1)
        share = (stage - 1 + progress.get("step", 0) / progress["num_steps"]) / stages
        return share * (self._most + 1) >= self.count + 1

    def next(self, finished: Iterable[Path]) -> bytes | None:
        """A PNG of the newest state; None where that is being written over, or none is kept."""
        try:
            store = Store.open(self._path)
            found = preview(store, self._colours.of(store, finished))
        except StoreError:
            return None
        self.count += found is not None
        return found


def _fit(path: Path, key: tuple[str, str, int]) -> ColourFit | None:
    try:
        store = Store.open(path)
        return (
            fit(store, TilePyramid(store, TileCache(CACHE_BYTES))) if key_of(store) == key else None
        )
    except StoreError:
        return None
