"""Attention on meta tensors as some device would do it, for whoever counts what a render holds.

Left alone, torch gives a meta tensor the textbook form of attention, with every logit in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .attention import attend
from .backends import HALF
from .meta_tensors import device_type, standing_for

# torch.nn.functional's name for it may stand for another function while a mode is on.
_ATTENTION = torch._C._nn.scaled_dot_product_attention


@contextmanager
def tracing(kind: str) -> Iterator[None]:
    """Inside, on this thread, meta tensors stand for those of a device: `cpu` or `cuda`."""
    with standing_for(kind), _FusedAttention():
        yield


class _FusedAttention(TorchFunctionMode):
    """torch's own attention as its fused kernels hold memory: no logits."""

    def __torch_function__(
        self,
        function: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if function is _ATTENTION:
            q, k, v = _first_three(*args, **kwargs)
            if q.is_meta:
                return _fused(q, k, v)
        return function(*args, **kwargs)


def _first_three(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Sequence[Tensor]:
    return query, key, value


def _fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The output of shape [..., S, E]; grouped heads are not repeated in memory."""
    lead, num_queries = q.shape[:-2], q.shape[-2]
    k, v = (x.expand(*lead, *x.shape[-2:]) if x.shape[-3] == 1 else x for x in (k, v))
    if q.ndim != 4 or k.shape[:-2] != lead:
        return q.new_empty((*lead, num_queries, v.shape[-1]))
    return attend(q, k, v, backend=_fused_backend(q, v)).out_BHSD


def _fused_backend(q: Tensor, v: Tensor) -> str:
    """torch's own choice, where it has one that keeps no logits."""
    if q.shape[-1] == v.shape[-1]:
        if device_type(q) == "cpu":
            return "cpu_flash"
        if q.dtype in HALF and q.shape[-1] <= 256:
            return "flash"
    return "reference" if device_type(q) == "cpu" else "efficient"
