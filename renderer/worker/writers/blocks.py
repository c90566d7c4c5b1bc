"""A thread that writes rows of pixels while the next ones are made.

Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from ...store.layout import RowSink

if TYPE_CHECKING:
    from ...store.layout import BlockId
    from ...store.store import Store
    from ...watermarks import Marked


class BlockWriter:
    """Writes block rows into a store and a picture's into other sinks, at most `depth` waiting.

    An error of the thread is raised by the next `put`, or by `close`; a block is drained only
    when every sink and the store have it.
    """

    def __init__(
        self,
        store: Store,
        sinks: Sequence[RowSink] = (),
        mark: Marked | None = None,
        depth: int = 4,
    ) -> None:
        """`mark` is what is done to pixels before they are written: a watermark."""
        self._mark = mark
        assert not sinks or store.layout.frames is None, "sinks take pictures only"
        self._store = store
        self._sinks = tuple(sinks)
        self._waiting: queue.Queue[tuple[int, np.ndarray, int | None] | None] = queue.Queue(depth)
        self._done: queue.SimpleQueue[dict[BlockId, str]] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="frieze-writer", daemon=True)
        self._thread.start()

    def __enter__(self) -> BlockWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self._stop()

    def put(self, row: int, pixels_HWC: np.ndarray, frame: int | None = None) -> None:
        """Hand over whole block rows, of a clip's `frame`; waits while `depth` are waiting."""
        self._raise()
        self._waiting.put((row, pixels_HWC, frame))

    def drain(self) -> dict[BlockId, str]:
        """Blocks that came to be on disk since the last call, with the digests of their files."""
        ids: dict[BlockId, str] = {}
        while not self._done.empty():
            ids |= self._done.get()
        return ids

    def close(self) -> None:
        """Return when everything put is on disk; raises what went wrong."""
        self._stop()
        self._raise()

    def _stop(self) -> None:
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()

    def _run(self) -> None:
        """After an error the queue is still emptied, so that no one waits for room in vain."""
        while (item := self._waiting.get()) is not None:
            if self._error is None:
                self._write(*item)

    def _write(self, row: int, pixels_HWC: np.ndarray, frame: int | None) -> None:
        try:
            if self._mark is not None:
                pixels_HWC = self._mark(pixels_HWC, row, frame)
            for sink in self._sinks:
                sink(row, pixels_HWC)
            self._done.put(self._store.write_rows(row, pixels_HWC, frame))
        except Exception as error:  # the thread's boundary: raised again by the caller's thread
            self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
