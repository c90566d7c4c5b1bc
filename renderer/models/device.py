"""Which kind of device a process works on."""

from __future__ import annotations

import ctypes
import os
import sys
from importlib import metadata


def device_type(device: str) -> str:
    """cpu, cuda, ...: the type of a device by its name; of `auto` the one that is here."""
    if device == "auto":
        return "cuda" if has_cuda() else "cpu"
    return device.partition(":")[0]


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
