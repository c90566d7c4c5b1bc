"""How many floating-point operations the tensors of one thread cost, real or meta.

Products of matrices, convolutions and attention count, by torch's own formulas (two for each
multiplication with its addition); what is done element by element does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from .meta_results import MetaResults

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
        self.total = self.attention = 0
        self._results = results

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
        if (formula := _FORMULAS.get(func.overloadpacket)) is not None:
            flops = formula(*args, **kwargs, out_val=out)
            self.total += flops
            if "scaled_dot_product" in func.overloadpacket.__name__:
                self.attention += flops
        return out


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


def current_flops() -> int:
    """What this thread's `flop_count` has come to; 0 outside."""
    return 0 if (count := _current.get()) is None else count.total


def add_flops(flops: int) -> None:
    """Adds the cost of what is not run because its like was."""
    if (count := _current.get()) is not None:
        count.total += flops
