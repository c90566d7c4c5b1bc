"""The contract of an export: the file that it makes of a store, and what it can be told.

Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from ..color.conversion import Conversion
from ..errors import ExportError
from ..files.atomic import whole_file, whole_folder
from ..files.folder import Folder
from ..files.location import S3Path
from ..inputs.metadata import Metadata
from ..inputs.transparency import with_alpha
from ..store.follower import Follow
from ..store.layout import StoreLayout
from ..store.provenance import alpha_of, carried_by, color_of, dpi_of, source
from ..store.store import Store
from .picture_rows import has_alpha


class ExportOptions(BaseModel):
    """What a format can be told by `--option`; one field each, described."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


@dataclass(frozen=True)
class Output:
    """A file or folder to make of a store, in which colours, and how dense in dots per inch.

    `color` and `intent` are as asked for, None where the store's run says. With `follow` the store
    may still be drawn.
    """

    store: Store
    path: Path
    dpi: float
    color: str | None = None
    intent: str | None = None
    overwrite: bool = False
    follow: Follow = False

    @classmethod
    def of(
        cls,
        store: Store | str | os.PathLike[str] | S3Path,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        follow: Follow = False,
        dpi: float | None = None,
        color: str | None = None,
        intent: str | None = None,
    ) -> Self:
        """What to make of a store, or of the one at an address.

        Raises `StoreError` where there is none, `ExportError` of a path that lies in it and of a
        `dpi` that does not work.
        """
        found = source(store, path)
        return cls(found, Path(path), dpi_of(found, dpi), color, intent, overwrite, follow)

    @property
    def layout(self) -> StoreLayout:
        """The store's."""
        return self.store.layout

    @functools.cached_property
    def colors(self) -> Conversion:
        """From the store's colours to the file's; raises `ExportError` as `color_of` does."""
        return color_of(self.store, self.path, self.color, self.intent)

    @property
    def carried(self) -> Metadata:
        """What the picture that was made larger said of itself."""
        return carried_by(self.store)

    @property
    def has_alpha(self) -> bool:
        """Whether the picture that was made larger had alpha."""
        return has_alpha(self.layout)

    @property
    def about(self) -> dict[str, Any]:
        """What a folder's frieze.json says: what drew it, of a clip its rate, dots per inch."""
        fps = {} if self.layout.fps is None else {"fps": self.layout.fps}
        return {**self.store.provenance, **fps, "dpi": self.dpi}

    def straight(self, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, pixels [rows, W, 3 or 4]) of a picture from the top down.

        In the store's colours, straight where there is alpha. Raises `StoreError` where the
        picture is not drawn, and not followed.
        """
        size = (self.layout.height, self.layout.width)
        in_order = self.store.in_order(rows, wait=self.follow)
        return with_alpha(in_order, alpha_of(self.store), size)

    def strips(self, rows: int, workers: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """The same in the file's colours, alpha last; by so many threads (None: all cores)."""
        return self.colors.strips(self.straight(rows), workers)

    def flat_strips(
        self, rows: int, workers: int | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """The same of a format without alpha: the store's own pixels, which lie on white."""
        return self.colors.strips(self.store.in_order(rows, wait=self.follow), workers)

    def file(self) -> AbstractContextManager[Path]:
        """The name to write a file under: it takes its own when the block ends well."""
        return whole_file(self.path, overwrite=self.overwrite, error=ExportError)

    def folder(
        self, last: str, is_ours: Callable[[Set[str], bytes | None], bool]
    ) -> AbstractContextManager[Path]:
        """An empty folder to fill, likewise.

        It replaces what `is_ours` by the names in it and the bytes of its file `last`.
        """

        def is_earlier(path: Path) -> bool:
            return is_ours({entry.name for entry in path.iterdir()}, Folder(path).read(last))

        return whole_folder(
            self.target, overwrite=self.overwrite, is_ours=is_earlier, error=ExportError
        )

    @property
    def target(self) -> Path:
        """Where a folder comes to lie, links followed."""
        return Path(os.path.realpath(self.path))
