"""The driver's public verbs: `render` and `resume`. The steps they take are in drive.py."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .errors import StoreError
from .events import Event
from .imports import uncollected
from .listener import RenderResult, StepCallback
from .locations import Location, location
from .spec import RenderSpec

if TYPE_CHECKING:
    pass


def render(
    spec: RenderSpec,
    *,
    exports: Sequence[str | Location] = (),
    continued: bool = False,
    callback_on_step_end: StepCallback | None = None,
    on_event: Callable[[Event], None] | None = None,
    cancel: threading.Event | None = None,
) -> RenderResult:
    """Draw a picture and return where it is.

    `spec.out` ending in .zarr is the OME-Zarr store itself, and may be s3://BUCKET/NAME.zarr; .tif
    is written live beside its store, other suffixes and every path in `exports` are made from the
    store while it is painted.
    `callback_on_step_end` is called after every step as diffusers' pipelines do, with a
    `RenderHandle` in the pipeline's place; setting `handle.interrupt` or `cancel` stops at the
    next step with a store that `resume` finishes, and `cancel` ends a wait for workers at once. If
    `continued`, a store that is there already and is of this very picture is finished instead, with
    the workers that `spec` asks for.

    Raises `SpecError`, `ModelError`, `PlanError`, `StoreError`, `ExportError` before any work;
    `RenderCancelledError` or `RenderFailedError` during it, with the store left resumable.
    """
    with uncollected():
        from .attended import settled
        from .drive import Drive

    drive = Drive(on_event, cancel, callback_on_step_end, settle=settled)
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
) -> RenderResult:
    """Finish what a stopped render left in the store at `path`, on any number of workers.

    On the same number of workers the pixels are byte for byte those of an undisturbed run; on
    another number they are within one grey level. Arguments left None are the store's own.

    Raises `StoreError` when there is no usable store, `FingerprintError` when the weights or
    the version have changed, and what `render` raises.
    """
    with uncollected():
        from .drive import Drive

    place = {"workers": workers, "local": local, "address": address}
    changes = place | {"timeout": timeout, "wait": wait}
    given: dict[str, Any] = {k: value for k, value in changes.items() if value is not None}
    if workers is not None:
        given |= {"max_workers": None}  # unless `workers` is a range, as "2..8"
    drive = Drive(on_event, cancel, callback_on_step_end)
    return drive.resume(location(path, StoreError), given, exports, overwrite)
