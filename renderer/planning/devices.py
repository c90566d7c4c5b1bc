"""What the device of a render lacks, found out before any work: no device, no such precision."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from importlib import metadata

from ..errors import PlanError, shown
from ..spec.render_spec import RenderSpec


def check(spec: RenderSpec) -> None:
    """Raises `PlanError` where this machine's device cannot work as the spec asks.

    Devices of a cluster, and those of a plan that says how large they are, are not ours to see.
    """
    if spec.device_memory is None:
        check_here(spec)


def check_here(spec: RenderSpec) -> None:
    """`check` for a render that starts now, unless it starts on a cluster."""
    if on_cluster(spec):
        return
    kind = _kind(spec)
    if spec.quantization is not None:
        from ..models import quantization  # imports torch

        quantization.check(spec, kind)
    if spec.dtype != "float32" and not _computes(kind, spec.dtype):
        raise PlanError(
            f"dtype {spec.dtype!r} is not computed by {kind} here; float32 works"
            + (", and float16" if kind == "cuda" else "")
        )


def has_cuda() -> bool:
    """Whether torch has a CUDA device here; torch is imported only where there may be one."""
    if "torch" not in sys.modules and not _may_have_cuda():
        return False
    import torch

    return torch.cuda.is_available()


def _may_have_cuda() -> bool:
    """False without CUDA's driver, which torch opens by this name, or AMD's device."""
    if metadata.version("torch").endswith("+cpu"):
        return False
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return os.path.exists("/dev/kfd")
    return True


def on_cluster(spec: RenderSpec) -> bool:
    """Whether workers run on a cluster that is there already: given, or that of this Ray job."""
    return not spec.local and (spec.address is not None or "RAY_ADDRESS" in os.environ)


def _kind(spec: RenderSpec) -> str:
    """cpu, cuda, ...; raises `PlanError` for a device that is not here."""
    if spec.device == "cpu":
        return "cpu"
    here = has_cuda()
    if spec.device == "auto":
        return "cuda" if here else "cpu"
    import torch

    try:
        device = torch.device(spec.device)
    except RuntimeError:
        raise PlanError(f"device {shown(spec.device)} is none; auto, cpu, cuda or cuda:0") from None
    if device.type not in ("cpu", "cuda"):
        raise PlanError(f"device {spec.device!r} draws nothing; auto, cpu, cuda or cuda:0 works")
    if device.type == "cuda" and not here:
        raise PlanError(f"device {spec.device!r}: there is no CUDA device here; use cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise PlanError(f"device {spec.device!r}: there are {count} CUDA devices, from cuda:0 on")
    return device.type


@functools.cache
def _computes(kind: str, dtype: str) -> bool:
    """Whether a device has what every model needs in a precision: tried on a few numbers."""
    import torch
    import torch.nn.functional as F

    if kind == "cuda" and dtype == "bfloat16":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        x = torch.ones(1, 1, 8, 8, dtype=getattr(torch, dtype), device=kind)
        F.conv2d(x, x[..., :3, :3], padding=1)
        F.scaled_dot_product_attention(x, x, x)
        F.layer_norm(x, (8,)) @ x
    except RuntimeError:
        return False
    return True
