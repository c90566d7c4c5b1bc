"""The public verbs: render, resume, batch."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from .batches import items as batch_items
from .batches.item_states import ItemEvent, ItemResult
from .driver.caller import RenderResult, StepCallback
from .errors import SpecError, StoreError
from .events import Event
from .files.location import Location, S3Path, location
from .models.imports import uncollected
from .outputs.signer import asked_for
from .spec.render_spec import RenderSpec


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
    again: str | None = None,
    sign: tuple[str, str] | None = None,
    timestamp: str | None = None,
) -> Generator[ItemResult, None, None]:
    """Draw the items of a file, or mappings of their keys, into the folder `out`; lazily.

    `out` may be a prefix of a bucket, s3://BUCKET/NAME.

    Items are planned at once, and drawn as results are asked for: each is yielded when it has
    ended, done or failed; one that fails does not stop the others. An item that broke in its work
    is tried `retries` times more. With `continued` a batch that was stopped goes on: what is done
    stays, what was half drawn is finished, what failed is tried again. `out` also gets
    report.json and contact.png. Setting `cancel`, or leaving the iterator, stops at the next
    step, and a wait for workers at once. `again` is the command that messages tell to go on with,
    where that is not `frieze batch`. `sign` and `timestamp` are as in `render`.

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

    from .batches.batch import Batch

    title = str(source) if isinstance(source, str | Path) else None
    made = Batch(
        title,
        root,
        found,
        workers,
        local=local,
        address=address,
        retries=retries,
        again=again,
        signer=asked_for(sign, timestamp),
    )
    made.check(continued=continued)
    return made.results(on_event, cancel or threading.Event())


def render(
    spec: RenderSpec,
    *,
    exports: Sequence[str | Location] = (),
    continued: bool = False,
    callback_on_step_end: StepCallback | None = None,
    on_event: Callable[[Event], None] | None = None,
    cancel: threading.Event | None = None,
    sign: tuple[str, str] | None = None,
    timestamp: str | None = None,
) -> RenderResult:
    """Draw a picture and return where it is.

    `spec.out` ending in .zarr is the OME-Zarr store itself, and may be s3://BUCKET/NAME.zarr; .tif
    is written live beside its store, other suffixes and every path in `exports` are made from the
    store while it is painted.
    `callback_on_step_end` is called after every step as diffusers' pipelines do, with a
    `RenderHandle` in the pipeline's place; setting `handle.interrupt` or `cancel` stops at the
    next step with a store that `resume` finishes, and `cancel` ends a wait for workers at once. If
    `continued`, a store that is there already and is of this very picture is finished instead, with
    the workers that `spec` asks for. With `sign`, paths of a certificate and its key in PEM, the
    exports carry signed Content Credentials (C2PA), with a time stamp of the RFC 3161 authority at
    the address `timestamp`.

    Raises `SpecError`, `ModelError`, `PlanError`, `StoreError`, `ExportError` before any work;
    `RenderCancelledError` or `RenderFailedError` during it, with the store left resumable.
    """
    with uncollected():
        from .driver.driver import Driver
        from .repetition.detect import settled

    signer = asked_for(sign, timestamp)
    drive = Driver(on_event, cancel, callback_on_step_end, settle=settled, signer=signer)
    return drive.go_on(spec, exports) if continued else drive.render(spec, exports)


def resume(
    path: str | Location,
    *,
    workers: int | str | None = None,
    local: bool | None = None,
    address: str | None = None,
    timeout: float | None = None,
    wait: float | None = None,
    exports: Sequence[str | Location] = (),
    overwrite: bool = False,
    callback_on_step_end: StepCallback | None = None,
    on_event: Callable[[Event], None] | None = None,
    cancel: threading.Event | None = None,
    sign: tuple[str, str] | None = None,
    timestamp: str | None = None,
) -> RenderResult:
    """Finish what a stopped render left in the store at `path`, on any number of workers.

    On the same number of workers the pixels are byte for byte those of an undisturbed run; on
    another number they are within one grey level. Arguments left None are the store's own, but for
    `sign` and `timestamp`, as in `render`, which no store keeps.

    Raises `StoreError` when there is no usable store, `FingerprintError` when the weights or
    the version have changed, and what `render` raises.
    """
    with uncollected():
        from .driver.driver import Driver

    place = {"workers": workers, "local": local, "address": address}
    changes = place | {"timeout": timeout, "wait": wait}
    given: dict[str, Any] = {k: value for k, value in changes.items() if value is not None}
    if workers is not None:
        given |= {"max_workers": None}  # unless `workers` is a range, as "2..8"
    drive = Driver(on_event, cancel, callback_on_step_end, signer=asked_for(sign, timestamp))
    return drive.resume(location(path, StoreError), given, exports, overwrite)
