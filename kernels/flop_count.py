"""What operations of one thread ask of a device, on tensors real or meta: FLOPs, bytes, messages.

Products of matrices, convolutions and attention have FLOPs by torch's own formulas, two for each
multiplication with its addition; what is done element by element has none, but bytes.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from .meta_results import MetaResults
from .work import Work

_aten = torch.ops.aten
# torch has no formula of its own for the processor's kernel; it computes what the others do.
_FORMULAS: Mapping[Any, Callable[..., int]] = {
    **flop_registry,
    _aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[
        _aten._scaled_dot_product_flash_attention
    ],
}


class FlopCount(TorchDispatchMode):
    """While active, counts what this thread's operations cost, in all and those of attention.

    `results` spares running what meta tensors were asked before.
    """

    def __init__(self, results: MetaResults | None = None) -> None:
        super().__init__()
        self._counts: Counter[str] = Counter()
        self._results = results

    @property
    def work(self) -> Work:
        """Until now."""
        return Work(**self._counts)

    @property
    def total(self) -> int:
        """FLOPs of all kinds until now."""
        return self.work.flops

    @property
    def attention(self) -> int:
        """FLOPs of attention until now."""
        return self._counts["attention"]

    def add(self, work: Work) -> None:
        """Adds the cost of what is not run."""
        self._counts.update(asdict(work))

    def part(self, name: str) -> AbstractContextManager[None]:
        """Nothing: what is done inside counts as ever. Counts of memory tell parts apart."""
        return nullcontext()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        results = self._results
        out = func(*args, **kwargs) if results is None else results.run(func, args, kwargs)
        self._counts["calls"] += 1
        kind = _kind(func)
        self._counts["convs"] += kind == "conv"
        if kind != "view":
            self._counts["touched"] += _num_bytes((*args, *kwargs.values(), out))
        if kind in ("matmul", "conv", "attention"):
            self._counts[kind] += _FORMULAS[func.overloadpacket](*args, **kwargs, out_val=out)
        return out


@functools.cache
def _kind(func: Any) -> str:
    """Which of a `Work`'s FLOPs an operation has; view for none and no bytes, else copy."""
    if func.overloadpacket in _FORMULAS:
        name = func.overloadpacket.__name__
        parts = {"attention": "attention", "conv": "conv"}
        return next((kind for kind, part in parts.items() if part in name), "matmul")
    is_view = any(each.alias_info and not each.alias_info.is_write for each in func._schema.returns)
    return "view" if is_view else "copy"


def _num_bytes(values: Any) -> int:
    """Of all tensors among nested arguments and results."""
    total = 0
    for value in values:
        if isinstance(value, Tensor):
            total += value.numel() * value.element_size()
        elif isinstance(value, list | tuple):
            total += _num_bytes(value)
    return total


_current: ContextVar[FlopCount | None] = ContextVar("flop_count", default=None)


@contextmanager
def flop_count(results: MetaResults | None = None) -> Iterator[FlopCount]:
    """A count of what is done inside, on this thread."""
    token = _current.set(count := FlopCount(results))
    try:
        with count:
            yield count
    finally:
        _current.reset(token)


def current_work() -> Work:
    """What this thread's `flop_count` has come to; nothing outside."""
    return Work() if (count := _current.get()) is None else count.work


def add_work(work: Work) -> None:
    """Adds the cost of what is not run because its like was, or is no operation of torch."""
    if (count := _current.get()) is not None:
        count.add(work)


def count_sent(messages: Sequence[int]) -> None:
    """Adds messages of so many bytes to other ranks."""
    add_work(Work(sent=sum(messages), messages=len(messages)))


@contextmanager
def standing_for_attention(times: float) -> Iterator[None]:
    """Products of matrices inside are attention's, and stand for so many times themselves."""
    before = current_work()
    yield
    done = current_work() - before
    whole = replace(done, matmul=0, attention=done.attention + done.matmul).times(times)
    add_work(whole - done)
