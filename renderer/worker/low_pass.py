"""Low-pass filters of a whole canvas, each rank holding a band of its rows.

Shape suffixes: B batch, C channels, T frames, H rows of a band, W columns, N column frequencies.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from frieze.cluster.comm import Comm, Like
from frieze.cluster.layout import Band, Halo, cut


def haar(comm: Comm, x_BCTHW: Tensor, bands: Sequence[Band]) -> Tensor:
    """The low band of one level of Haar: means of 2 x 2 cells, counted from the canvas' corner.

    Where a side is odd, its last cells count twice. Bands may cut a block; its rows are borrowed.
    """
    height = bands[-1].stop
    halos = [Halo(b.start % 2, b.stop % 2 if b.stop < height else 0) for b in bands]
    halo, rows = halos[comm.rank], x_BCTHW.shape[-2]
    if any(each != Halo(0, 0) for each in halos):
        x_BCTHW = comm.borrow(x_BCTHW, halo, x_BCTHW.ndim - 2, halos)
    width = x_BCTHW.shape[-1]
    for dim in (-2, -1):
        if x_BCTHW.shape[dim] % 2:
            x_BCTHW = torch.cat([x_BCTHW, x_BCTHW.narrow(dim, -1, 1)], dim)
    # By pairs, whose sum has one order: a mean of four would depend on how rows lie in memory.
    sums = x_BCTHW.unflatten(-1, (-1, 2)).sum(-1).unflatten(-2, (-1, 2)).sum(-2)
    means = (sums / 4)[..., :, None, :, None].expand(*sums.shape[:-1], 2, sums.shape[-1], 2)
    return means.flatten(-4, -3).flatten(-2).narrow(-2, halo.above, rows)[..., :width]


def butterworth(
    comm: Comm, x_BCTHW: Tensor, bands: Sequence[Band], *, cutoff: float, order: int
) -> Tensor:
    """The canvas' frequencies times 1 / (1 + (f / cutoff)^(2 order)), f in parts of Nyquist's.

    A 2-D transform of the whole canvas: every rank transforms its rows, the ranks trade rows for
    columns, every rank filters its columns, and back. Frames are filtered one by one.
    """
    width = x_BCTHW.shape[-1]
    spectrum_BCTHN = torch.fft.rfft(x_BCTHW)
    slices = cut(spectrum_BCTHN.shape[-1], comm.size)
    whole = _rows_for_columns(comm, spectrum_BCTHN, bands, slices)
    gain = _gain(bands[-1].stop, width, cutoff, order, like=x_BCTHW)
    own = slices[comm.rank]
    spectrum = torch.fft.fft(whole, dim=-2) * gain[:, own.start : own.stop]
    whole = torch.fft.ifft(spectrum, dim=-2)
    return torch.fft.irfft(_columns_for_rows(comm, whole, bands, slices), n=width)


def _gain(height: int, width: int, cutoff: float, order: int, like: Tensor) -> Tensor:
    rows = 2 * torch.fft.fftfreq(height, dtype=torch.float64)
    columns = 2 * torch.fft.rfftfreq(width, dtype=torch.float64)
    square = rows[:, None].square() + columns[None, :].square()
    return (1 / (1 + (square / cutoff**2) ** order)).to(like)


def _rows_for_columns(
    comm: Comm, x: Tensor, bands: Sequence[Band], slices: Sequence[Band]
) -> Tensor:
    """All rows of this rank's columns, for all columns of its rows."""
    own = slices[comm.rank]
    parts = [x[..., s.start : s.stop] for s in slices]
    shapes = [(*x.shape[:-2], band.rows, own.rows) for band in bands]
    return torch.cat(_traded(comm, parts, shapes), dim=-2)


def _columns_for_rows(
    comm: Comm, x: Tensor, bands: Sequence[Band], slices: Sequence[Band]
) -> Tensor:
    """The inverse of `_rows_for_columns`."""
    own = bands[comm.rank]
    parts = [x[..., band.start : band.stop, :] for band in bands]
    shapes = [(*x.shape[:-2], own.rows, s.rows) for s in slices]
    return torch.cat(_traded(comm, parts, shapes), dim=-1)


def _traded(comm: Comm, parts: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Part i to rank i. Complex numbers travel as pairs: not every backend carries them."""
    reals = [torch.view_as_real(part.contiguous()) for part in parts]
    likes = [Like((*shape, 2), reals[0].dtype, reals[0].device) for shape in shapes]
    return [torch.view_as_complex(part) for part in comm.all_to_all(reals, likes)]
