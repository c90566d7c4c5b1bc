"""The ranks that draw a canvas together, as `Comm`: alone, as threads or as processes."""

from __future__ import annotations

from typing import Any

import torch

from .collectives import Comm, SoloComm
from .messages import CommError, Like, Pending, RankLostError
from .rank_threads import call_vector_math, line_up, run_threads, threads

__all__ = [
    "Comm",
    "CommError",
    "Like",
    "Pending",
    "RankLostError",
    "call_vector_math",
    "distributed",
    "line_up",
    "run_threads",
    "solo",
    "threads",
]


def solo() -> Comm:
    """A world of one rank."""
    return SoloComm()


def distributed(
    rank: int,
    size: int,
    *,
    store: Any,
    address: str,
    device: torch.device | str = "cpu",
    timeout: float = 60.0,
    backend: str | None = None,
) -> Comm:
    """Joins a world of `size` processes; they meet in a `store`, one of `torch.distributed`.

    Who reaches the store can join. This rank listens for the others at its own `address`.

    `backend` is nccl for a CUDA device and gloo otherwise; gloo carries CUDA tensors through host
    memory, which lets several ranks share one device. RankLostError if a rank is missing after
    `timeout` seconds.
    """
    from .processes import DistributedComm

    return DistributedComm(
        rank, size, store=store, address=address, device=device, timeout=timeout, backend=backend
    )
