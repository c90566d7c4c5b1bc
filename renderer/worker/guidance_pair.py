"""CFG parallelism: two ranks evaluate one prompt each of one band, and keep half of it each.

Shape suffixes: B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from frieze.cluster.comm import Comm, Like
from frieze.cluster.layout import Band, Mesh


def groups(comm: Comm, mesh: Mesh) -> tuple[Comm | None, Comm]:
    """(the two ranks of a band, if there are; all ranks in the order of the rows they keep)."""
    if mesh.guidance == 1:
        return None, comm
    first = range(mesh.ring * mesh.ulysses)
    order = [r for rank in first for r in mesh.group(rank, "guidance")]
    return comm.group(mesh.group(comm.rank, "guidance")), comm.group(order)


def whole(pair: Comm | None, share_BCTHW: Tensor, band: Band, all_shares: Sequence[Band]) -> Tensor:
    """The band's rows from the shares that its pair of ranks keep."""
    if pair is None:
        return share_BCTHW
    like = Like.of(share_BCTHW)
    shares = [share for share in all_shares if band.start <= share.start < band.stop]
    parts = pair.all_gather(share_BCTHW, [like.with_size(-2, share.rows) for share in shares])
    return torch.cat(parts, dim=-2)
