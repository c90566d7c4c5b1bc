"""The public verb `batch`: many pictures, one after another and side by side, on warm workers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from . import items as batch_items
from .errors import SpecError
from .ledger import ItemEvent, ItemResult
from .locations import S3Path, location


def batch(
    source: str | Path | Iterable[Mapping[str, Any]],
    *,
    out: str | Path,
    workers: int = 1,
    local: bool = False,
    park: Literal["host", "disk"] | None = None,
    address: str | None = None,
    device: str | None = None,
    device_memory: float | None = None,
    timeout: float | None = None,
    wait: float | None = None,
    continued: bool = False,
    retries: int = 1,
    on_event: Callable[[ItemEvent], None] | None = None,
    cancel: threading.Event | None = None,
) -> Generator[ItemResult, None, None]:
    """Draw the items of a file, or mappings of their keys, into the folder `out`; lazily.

    `out` may be a prefix of a bucket, s3://BUCKET/NAME.

    Items are planned at once, and drawn as results are asked for: each is yielded when it has
    ended, done or failed; one that fails does not stop the others. An item that broke in its work
    is tried `retries` times more. With `continued` a batch that was stopped goes on: what is done
    stays, what was half drawn is finished, what failed is tried again. `out` also gets
    report.json and contact.png. Setting `cancel`, or leaving the iterator, stops at the next
    step, and a wait for workers at once.

    Raises `SpecError` before any work for a file with unknown keys, paths that leave `out` or
    outputs of two items that meet, and `PlanError` or `ModelError` if no item can be drawn;
    `RenderCancelledError` during it when asked to stop.
    """
    if not isinstance(workers, int):
        raise SpecError(
            f"workers {workers!r}: a batch takes one number, the most there may be; what no worker "
            "comes for is drawn by the others"
        )
    if retries < 0:
        raise SpecError(f"retries {retries} is less than 0, which is the least")
    where = location(out, SpecError)
    root = where if isinstance(where, S3Path) else Path(os.path.realpath(where))
    spread: dict[str, Any] = {"park": park, "address": address, "device": device}
    spread |= {"device_memory": device_memory, "timeout": timeout, "wait": wait}
    shared = {"local": local, **{key: value for key, value in spread.items() if value is not None}}
    found = batch_items.read(source, root, shared)

    from .batching import Batch

    title = str(source) if isinstance(source, str | Path) else None
    made = Batch(title, root, found, workers, local=local, address=address, retries=retries)
    made.check(continued=continued)
    return made.results(on_event, cancel or threading.Event())
