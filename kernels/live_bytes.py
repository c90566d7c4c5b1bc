"""How many bytes of tensors are alive on one thread, and how many at most: real or meta tensors.

Storages are counted, not tensors, so views are free; one storage is counted from the operation
that made it until its last tensor is gone.  Meta tensors count as what they stand for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, UntypedStorage
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from .meta_results import MetaResults

# Bytes that an operation uses inside and gives back before it returns: (operation, args, output).
Workspace = Callable[[Any, tuple[Any, ...], Any], int]


@dataclass
class _Alive:
    ref: StorageWeakRef
    num_bytes: int
    part: str


@dataclass(frozen=True)
class Peak:
    """The most bytes that were alive at once, and of which parts they were."""

    num_bytes: int = 0
    parts: Mapping[str, int] = field(default_factory=dict)


class LiveBytes(TorchDispatchMode):
    """While active, counts the storages that this thread's operations make.

    What was made before is not counted.  `workspace` adds what an operation holds inside, which
    no tensor shows.  `results` spares running what meta tensors were asked before.
    """

    def __init__(
        self, workspace: Workspace | None = None, results: MetaResults | None = None
    ) -> None:
        super().__init__()
        self.peak = Peak()
        self._run = _call if results is None else results.run
        self._workspace = workspace
        self._alive: dict[int, _Alive] = {}
        self._totals: Counter[str] = Counter()
        self._part = "work"

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        older = {storage._cdata for storage in _storages([*args, *kwargs.values()])}
        out = self._run(func, args, kwargs)
        known = (older, self._alive)
        made = [s for s in _storages([out]) if not any(s._cdata in each for each in known)]
        inside = 0 if self._workspace is None else self._workspace(func, args, out)
        if made or inside:
            self._count(made, inside)
        return out

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What is made inside is of this part."""
        before, self._part = self._part, name
        try:
            yield
        finally:
            self._part = before

    def adopt(self, tensors: Iterable[Tensor]) -> None:
        """Takes off what these free when they go; while they are there they count nothing."""
        for storage in (x.untyped_storage() for x in tensors):
            if storage._cdata not in self._alive:
                self._alive[storage._cdata] = _Alive(
                    StorageWeakRef(storage), storage.nbytes(), "work"
                )

    @property
    def num_bytes(self) -> int:
        """Bytes alive now, beyond what there was before."""
        self._forget_dead()
        return sum(self._totals.values())

    def _count(self, made: list[UntypedStorage], inside: int) -> None:
        for storage in made:
            alive = _Alive(StorageWeakRef(storage), storage.nbytes(), self._part)
            if storage._cdata not in self._alive:
                self._alive[storage._cdata] = alive
                self._totals[alive.part] += alive.num_bytes
        # What is dead still counts until it is looked for: that costs, and only a peak needs it.
        if sum(self._totals.values()) + inside <= self.peak.num_bytes:
            return
        self._forget_dead()
        now = sum(self._totals.values()) + inside
        if now > self.peak.num_bytes:
            parts = dict(self._totals)
            parts["work"] = parts.get("work", 0) + inside
            self.peak = Peak(now, parts)

    def _forget_dead(self) -> None:
        for key in [key for key, alive in self._alive.items() if alive.ref.expired()]:
            alive = self._alive.pop(key)
            self._totals[alive.part] -= alive.num_bytes


def _call(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return func(*args, **kwargs)


def _storages(values: Iterable[Any]) -> Iterator[UntypedStorage]:
    """The storages of the tensors among these arguments or results."""
    for value in values:
        if isinstance(value, Tensor):
            if value.layout == torch.strided:
                yield value.untyped_storage()
        elif isinstance(value, list | tuple):
            yield from _storages(value)
