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
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch

from frieze.cluster.shared_switch import SharedSwitch
from frieze.kernels import attention

if TYPE_CHECKING:
    from ..spec.render_spec import RenderSpec

LIBRARIES = ("frieze", "torch", "diffusers", "transformers", "numpy")

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


@functools.cache
def _version(library: str) -> str:
    """As it was when first asked for, which is what was imported; reading it takes milliseconds."""
    return metadata.version(library)


def numerics(spec: RenderSpec, device: torch.device) -> dict[str, Any]:
    """What decides the last bits of what the calling rank computes.

    `attention` are the kernels that it has used, if any by now.
    """
    versions = {name: _version(name) for name in LIBRARIES}
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        where = {"device": torch.cuda.get_device_name(device), "capability": f"{major}.{minor}"}
    else:
        # Asked for here, the number holds for this thread's first product as well.
        threads = torch.get_num_threads()
        capability = torch.backends.cpu.get_cpu_capability()
        where = {"device": device.type, "capability": capability, "threads": str(threads)}
    used = ", ".join(attention.used())
    return {**versions, **where, "dtype": spec.dtype, **({"attention": used} if used else {})}
