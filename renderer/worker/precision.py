"""float32 that stays float32: what a worker computes, without gradients and without TF32.

On a GPU torch lets cuDNN round the factors of float32 convolutions to TF32's 10 bits, and which
kernel rounds where depends on the shape: latents of bands and of the whole canvas come out further
apart than float32 explains. A render that may round has `dtype="bfloat16"`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar, cast

import torch

from frieze.cluster.shared_switch import SharedSwitch

F = TypeVar("F", bound=Callable[..., Any])


def exactly(function: F) -> F:
    """The function, or generator, inside `full_float32` and `torch.no_grad`."""
    plain = torch.no_grad()(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with full_float32():
            return plain(*args, **kwargs)

    @functools.wraps(function)
    def items(*args: Any, **kwargs: Any) -> Any:
        with full_float32():
            yield from plain(*args, **kwargs)

    return items if inspect.isgeneratorfunction(function) else call  # type: ignore[return-value]


def full_float32() -> AbstractContextManager[None]:
    """Inside, convolutions of this process do not round float32 to TF32.

    What the process had chosen is back when its last thread has left. Matrix products are as it
    chose: torch leaves them alone by default.
    """
    return _without_tf32


def _no_tf32() -> Callable[[], None]:
    """From now on; calling what is returned ends it."""
    cudnn: Any = torch.backends.cudnn
    owner, name, none = cudnn, "allow_tf32", cast(Any, False)
    try:
        before = cudnn.allow_tf32
    except RuntimeError:  # it was chosen for convolutions by themselves, and torch tells only that
        owner, name, none = cudnn.conv, "fp32_precision", "ieee"
        before = owner.fp32_precision
    setattr(owner, name, none)
    return lambda: setattr(owner, name, before)


# cuDNN's precision of float32, of which torch keeps one for the whole process.
_without_tf32 = SharedSwitch(_no_tf32)
