"""Exports of a render: each begun with the first pixels, and written while others are painted."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Self

from ..errors import FriezeError
from ..files.location import Location
from ..spec.render_spec import RenderSpec
from . import exporting, targets


class BackgroundExports:
    """The exports of one render, a thread for each; `made_for` says what, the spec how dense.

    As a context: what is not asked for by its end is given up, and leaves nothing.
    """

    def __init__(self, made_for: targets.Targets, spec: RenderSpec) -> None:
        self._made_for = made_for
        self._spec = spec
        self._given_up = threading.Event()
        self._pool: ThreadPoolExecutor | None = None
        self._begun: dict[Location, Future[Location]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._given_up.set()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def begin(self) -> None:
        """The store has its first pixels, or soon will: follow it. Once is enough."""
        if self._begun or not self._made_for.exports:
            return
        self._pool = ThreadPoolExecutor(len(self._made_for.exports), "export")
        for target in self._made_for.exports:
            self._begun[target] = self._pool.submit(self._export, target)

    def finish(self, target: Location) -> None:
        """Return when an export of the store, which is whole now, is; raises `ExportError`."""
        with suppress(FriezeError):
            if target in self._begun:
                self._begun[target].result()
                return
        self._export(target)

    def _export(self, target: Location) -> Location:
        return exporting.export(
            self._made_for.store,
            target,
            overwrite=self._made_for.overwrite,
            signing=self._made_for.signing,
            dpi=self._spec.dpi,
            color=self._spec.color,
            intent=self._spec.intent,
            follow=self._given_up,
        )
