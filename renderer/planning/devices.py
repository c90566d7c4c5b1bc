"""What the device of a render lacks, found out before any work: no device, no such precision."""

from __future__ import annotations

import functools
import os
import re

from ..errors import PlanError, shown
from ..models.device import device_type, has_cuda
from ..spec.render_spec import RenderSpec


def check(spec: RenderSpec) -> None:
    """Raises `PlanError` where this machine's device cannot work as the spec asks.

    Devices of a cluster, and those of a plan that says how large they are, are not ours to see.
    """
    _check_name(spec.device)
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
    if spec.dtype != "float32" and not computes(kind, spec.dtype):
        raise PlanError(
            f"dtype {spec.dtype!r} is not computed by {kind} here; float32 works"
            + (", and float16" if kind == "cuda" else "")
        )


def on_cluster(spec: RenderSpec) -> bool:
    """Whether workers run on a cluster that is there already: given, or that of this Ray job."""
    return not spec.local and _address(spec.address) not in ("", "local")


def uses_ray(spec: RenderSpec) -> bool:
    """Whether workers are Ray actors; one worker and no cluster needs no Ray."""
    return on_ray(spec.most_workers, spec.address, local=spec.local)


def on_ray(num_workers: int, address: str | None, *, local: bool) -> bool:
    """The same of what a batch was told, whose items come later."""
    return not local and (num_workers > 1 or _address(address) != "")


def _address(given: str | None) -> str:
    """The address of a Ray as it was given, or as a job finds it; "" where there is none."""
    return given or os.environ.get("RAY_ADDRESS", "")


def _check_name(device: str) -> None:
    if not re.fullmatch(r"auto|cpu(:0)?|cuda(:[0-9]{1,4})?", device):
        raise PlanError(f"device {shown(device)} draws nothing; auto, cpu, cuda or cuda:0 works")


def _kind(spec: RenderSpec) -> str:
    """cpu, cuda, ...; raises `PlanError` for a device that is not here."""
    kind = device_type(spec.device)
    if kind == "cpu":
        return kind
    if not has_cuda():
        raise PlanError(f"device {spec.device!r}: there is no CUDA device here; use cpu or auto")
    import torch

    count = torch.cuda.device_count()
    if int(spec.device.partition(":")[2] or 0) >= count:
        raise PlanError(f"device {spec.device!r}: there are {count} CUDA devices, from cuda:0 on")
    return kind


@functools.cache
def computes(kind: str, dtype: str) -> bool:
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
