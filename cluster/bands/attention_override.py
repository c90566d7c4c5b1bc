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

from ..shared_switch import SharedSwitch

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
        _exchanged.enter()

    def close(self) -> None:
        """No more."""
        _thread.instead = None
        _exchanged.leave()


class _Thread(threading.local):
    instead: Attention | None = None


def _exchange() -> Callable[[], None]:
    """From now on every thread's calls look whether it diverts; what is returned ends it."""
    plain = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = _diverting(plain)

    def give_back() -> None:
        F.scaled_dot_product_attention = plain

    return give_back


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
_exchanged = SharedSwitch(_exchange)  # torch's function, while at least one thread diverts it
