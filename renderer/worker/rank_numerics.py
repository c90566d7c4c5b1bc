"""What decides the last bits of what this rank computes."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch

from frieze.kernels import attention

if TYPE_CHECKING:
    from ..spec.render_spec import RenderSpec


LIBRARIES = ("frieze", "torch", "diffusers", "transformers", "numpy")


def of(spec: RenderSpec, device: torch.device) -> dict[str, Any]:
    """Those of the calling rank; `attention` are the kernels that it has used, if any by now."""
    versions = {name: metadata.version(name) for name in LIBRARIES}
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
