"""Data-parallel training over processes of one thread each.

On a few shared cores this beats one process of many threads: ranks wait for each other once a step
and not inside every operation.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing


def launch(work: Callable[..., None], folder: Path, ranks: int, *rest: object) -> None:
    """Run work(rank, ranks, folder, *rest) in processes that can average gradients over gloo."""
    (folder / "rendezvous").unlink(missing_ok=True)
    multiprocessing.spawn(_member, (work, ranks, folder, *rest), nprocs=ranks)


def _member(rank: int, work: Callable[..., None], ranks: int, folder: Path, *rest: object) -> None:
    warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "rendezvous"), ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    work(rank, ranks, folder, *rest)
    dist.destroy_process_group()


def backward(model: torch.nn.Module, loss: torch.Tensor) -> float:
    """Backpropagate and average the gradients over the ranks, clipped to norm 1; the mean loss."""
    loss.backward()
    grads = [weight.grad for weight in model.parameters() if weight.grad is not None]
    flat = torch.cat([loss.detach()[None], *(grad.flatten() for grad in grads)])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = flat[1:].split([grad.numel() for grad in grads])
    for grad, part in zip(grads, parts, strict=True):
        grad.copy_(part.view_as(grad))
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    return float(flat[0])


def agree(seconds: float) -> float:
    """Give every rank the clock of rank 0, so that all stop at the same step."""
    clock = torch.tensor(seconds, dtype=torch.float64)
    dist.broadcast(clock, 0)
    return float(clock)
