"""Which layers attend to the whole canvas, and the guard that not one of them escapes.

A missed attention is a silent seam, so every call of a marked layer is counted.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..attention import Context
from .tensor_shapes import BandError

ContextOf = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Context | None]


@dataclass(frozen=True, eq=False)
class Marks:
    """Some layers of one module; idle outside a mode, and shared by all threads.

    `local` layers attend only to what lies on this rank, and are left alone.
    """

    names: tuple[str, ...]
    local: bool = False
    handles: list[RemovableHandle] = field(default_factory=list, repr=False)

    def remove(self) -> None:
        """Takes the hooks off the layers."""
        for handle in self.handles:
            handle.remove()


def mark(
    module: nn.Module,
    match: Callable[[str, nn.Module], bool],
    context: Context | ContextOf | None = None,
    *,
    local: bool = False,
) -> Marks:
    """Marks the layers of `module` for which match(name, layer) holds.

    Each call of a marked layer must make exactly one `scaled_dot_product_attention`, which then is
    attention over the whole canvas.  `context` states the text tokens joined to its image tokens,
    or finds them from (layer, args, kwargs).  `local=True` says the opposite: what these layers
    attend to lies on this rank (all frames of one place, or text alone).
    BandError if nothing matches.
    """
    layers = [(name, layer) for name, layer in module.named_modules() if match(name, layer)]
    if not layers:
        raise BandError(f"no layer of {type(module).__name__} matches; see named_modules()")
    marks = Marks(tuple(name for name, _ in layers), local)
    for name, layer in layers:
        enter = partial(_enter, marks, name, context)
        marks.handles.append(layer.register_forward_pre_hook(enter, with_kwargs=True))
        marks.handles.append(layer.register_forward_hook(_leave, always_call=True))
    return marks


@dataclass
class Call:
    """A marked layer that is running."""

    marks: Marks
    name: str
    context: Context | None
    outer_error: BaseException | None
    num_attentions: int = 0
    # What becomes of the layer's output, where its attention answered more than it was asked.
    finished: Callable[[Tensor], Tensor] | None = None

    def close(self) -> None:
        """BandError unless the layer attended exactly once."""
        if not self.marks.local and self.num_attentions != 1:
            raise BandError(
                f"layer {self.name!r} made {self.num_attentions} attentions over the canvas "
                "instead of 1: its processor must call scaled_dot_product_attention exactly once"
            )


class Door(Protocol):
    """What is opened while marked layers run."""

    def open(self) -> None: ...

    def close(self) -> None: ...


class LayerGuard:
    """The marked layers that run, and have run, inside one mode on one thread.

    `door` is open while at least one of them runs.
    """

    def __init__(self, marks: Sequence[Marks], door: Door | None = None) -> None:
        self._expected = [(m, name) for m in marks if not m.local for name in m.names]
        self._finished: set[tuple[Marks, str]] = set()
        self._door = door
        self.running: list[Call] = []

    @property
    def innermost(self) -> Call | None:
        """The marked layer that is running, if one is."""
        return self.running[-1] if self.running else None

    def begin(self) -> None:
        """Starts watching this thread; BandError if another mode already does."""
        if _current.watch is not None:
            raise BandError("this thread is in a BandMode already; leave it first")
        self._finished.clear()
        _current.watch = self

    def end(self) -> None:
        """Stops watching, whatever happened."""
        _current.watch = None
        while self.running:
            self.leave()

    def enter(self, call: Call) -> None:
        """A layer begins to run."""
        if self._door is not None and not self.running:
            self._door.open()
        self.running.append(call)

    def leave(self) -> Call:
        """The innermost layer runs no more."""
        call = self.running.pop()
        if self._door is not None and not self.running:
            self._door.close()
        return call

    def finish(self, call: Call) -> None:
        """Counts a layer that attended as it should."""
        call.close()
        self._finished.add((call.marks, call.name))

    def leave_out(self, prefixes: tuple[str, ...]) -> None:
        """Layers whose names begin so need not run this time."""
        self._finished |= {each for each in self._expected if each[1].startswith(prefixes)}

    def check_all_ran(self) -> None:
        """BandError naming the marked layers that did not run."""
        missed = [name for marks, name in self._expected if (marks, name) not in self._finished]
        if missed:
            raise BandError(
                f"{len(missed)} of {len(self._expected)} marked layers made no attention over the "
                f"canvas: {', '.join(missed)}"
            )


class _Current(threading.local):
    watch: LayerGuard | None = None


_current = _Current()


def innermost() -> Call | None:
    """The marked layer that runs on this thread inside a mode, if one does."""
    watch = _current.watch
    return None if watch is None else watch.innermost


def leave_out(prefixes: tuple[str, ...]) -> None:
    """Marked layers of this thread's mode, if it is in one, that need not run this time."""
    if _current.watch is not None:
        _current.watch.leave_out(prefixes)


@contextlib.contextmanager
def off_bands() -> Iterator[None]:
    """Inside, on this thread, tensors are no bands: of a map that every rank holds whole."""
    watch, _current.watch = _current.watch, None
    try:
        with torch._C.DisableTorchFunction():
            yield
    finally:
        _current.watch = watch


def _enter(
    marks: Marks,
    name: str,
    context: Context | ContextOf | None,
    layer: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    if (watch := _current.watch) is not None:
        found = context(layer, args, kwargs) if callable(context) else context
        watch.enter(Call(marks, name, found, sys.exception()))


def _leave(layer: nn.Module, args: Any, output: Any) -> Tensor | None:
    watch = _current.watch
    if watch is None or not watch.running:
        return None
    call = watch.leave()
    # Hooks also run when the layer fails: then its own error is the one to report.
    if sys.exception() is not call.outer_error:
        return None
    watch.finish(call)
    return None if call.finished is None else call.finished(output)
