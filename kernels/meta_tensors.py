"""What meta tensors stand for while a plan is made: the tensors of a render on some device.

A traced model must choose the attention and the pieces that the device would, so that what is
counted is what a render holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_device_type: ContextVar[str] = ContextVar("device_type", default="cpu")


@contextmanager
def standing_for(device_type: str) -> Iterator[None]:
    """Inside, on this thread, meta tensors stand for those of `device_type`: cpu or cuda."""
    token = _device_type.set(device_type)
    try:
        yield
    finally:
        _device_type.reset(token)


def device_type(x: Tensor) -> str:
    """The type of the device that x is on, or stands for."""
    return _device_type.get() if x.is_meta else x.device.type
