"""Sends a thread's attention elsewhere, at no cost to its other torch calls.

A `TorchFunctionMode` takes a detour of microseconds at every call that its thread makes, which on a
small model is more than what is done to attention. Where attention alone is to be changed, the one
function is exchanged instead, for as long as any thread wants it; other threads pass through it.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

Attention = Callable[..., Tensor]


class AttentionOverride:
    """While open, this thread's `torch.nn.functional.scaled_dot_product_attention` is `instead`.

    `instead` is called with what the function was before, and then with the call's arguments; what
    it calls itself is not diverted. Diversions of one thread do not nest.
    """

    def __init__(self, instead: Attention) -> None:
        self._instead = instead

    def open(self) -> None:
        """From now on."""
        _thread.instead = self._instead
        _exchange.begin()

    def close(self) -> None:
        """No more."""
        _thread.instead = None
        _exchange.end()


class _Thread(threading.local):
    instead: Attention | None = None


class _Exchange:
    """torch's function, exchanged while at least one thread diverts it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_open = 0
        self._plain: Attention = F.scaled_dot_product_attention

    def begin(self) -> None:
        with self._lock:
            if not self._num_open:
                self._plain = F.scaled_dot_product_attention
                F.scaled_dot_product_attention = _diverting(self._plain)
            self._num_open += 1

    def end(self) -> None:
        with self._lock:
            self._num_open -= 1
            if not self._num_open:
                F.scaled_dot_product_attention = self._plain


def _diverting(plain: Attention) -> Attention:
    @functools.wraps(plain)
    def scaled_dot_product_attention(*args: Any, **kwargs: Any) -> Tensor:
        instead = _thread.instead
        if instead is None:
            return plain(*args, **kwargs)
        _thread.instead = None
        try:
            return instead(plain, *args, **kwargs)
        finally:
            _thread.instead = instead

    return scaled_dot_product_attention


_thread = _Thread()
_exchange = _Exchange()
