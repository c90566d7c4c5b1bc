"""Some rows or columns of a tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def progression(indices: Sequence[int]) -> slice | None:
    """The slice that runs through `indices`, ascending and evenly spaced; None if they are not."""
    if not indices:
        return slice(0, 0)
    first, last = indices[0], indices[-1]
    step = indices[1] - first if len(indices) > 1 else 1
    if step < 1 or list(indices) != list(range(first, last + 1, step)):
        return None
    return slice(first, last + 1, step)


def select(x: Tensor, indices: Sequence[int], dim: int) -> Tensor:
    """x at `indices` of `dim`, in that order; a view where they are evenly spaced."""
    if (run := progression(indices)) is None:
        return x.index_select(dim, torch.tensor(indices, device=x.device))
    return x[(slice(None),) * (dim % x.ndim) + (run,)]
