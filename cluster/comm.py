"""The ranks that draw a canvas together, as `Comm`: alone, as threads or as processes."""

from __future__ import annotations

import torch

from frieze.cluster.collectives import Comm, SoloComm
from frieze.cluster.messages import CommError, Like, Pending, RankLostError
from frieze.cluster.threads import line_up, run_threads, threads

__all__ = [
    "Comm",
    "CommError",
    "Like",
    "Pending",
    "RankLostError",
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
    address: str,
    port: int,
    device: torch.device | str = "cpu",
    timeout: float = 60.0,
    backend: str | None = None,
) -> Comm:
    """Joins a world of `size` processes; rank 0 keeps its store at `address`:`port`.

    `backend` is nccl for a CUDA device and gloo otherwise; gloo carries CUDA tensors through host
    memory, which lets several ranks share one device. RankLostError if a rank is missing after
    `timeout` seconds.
    """
    from frieze.cluster.distributed import DistributedComm

    return DistributedComm(
        rank, size, address=address, port=port, device=device, timeout=timeout, backend=backend
    )
