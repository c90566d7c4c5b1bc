"""A band of latents to pixels, exact, in bounded memory at the pixel end.

The decoder runs on bands up to its tail. The tail's group norm is the last thing that needs the
whole canvas; once its statistics are merged and one halo is borrowed, pixels are made and handed
out a few rows at a time, while other rows are still to come. A decoder without such a tail gives
whole bands of a few frames at a time instead.
Shape suffixes: B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from frieze.cluster.bands import around, band_mode
from frieze.cluster.comm import Comm
from frieze.cluster.layout import Band, Canvas, Halo
from frieze.kernels.group_norm import Moments, merge, moments, normalise

from ..models import finite
from ..models.family import Model, Tail

Fault = Callable[[str], Exception]


@dataclass(frozen=True)
class Piece:
    """Pixels [B, 3, T, H, W] in about [-1, 1] from this frame and this row of the canvas on."""

    frame: int
    row: int
    pixels_BCTHW: Tensor

    @property
    def rows(self) -> Band:
        """Its rows of the canvas."""
        return Band(self.row, self.row + self.pixels_BCTHW.shape[-2])


def decode(
    model: Model,
    x_BCTHW: Tensor,
    bands: tuple[Band, ...],
    canvas: Canvas,
    comm: Comm,
    *,
    rows_per_block: int,
    fault: Fault | None = None,
) -> Iterator[Piece]:
    """Yield this rank's pixels in pieces of `rows_per_block` rows (fewer at the end).

    Pictures come from the top of the band down, clips a few frames after the other. Collective
    whenever it computes: every rank asks for all of its pieces. Raises what `fault` makes of the
    name of what is not finite; without it nothing is looked at.
    """
    work = (x_BCTHW, bands, canvas, comm, rows_per_block, fault)
    if model.tail is None:
        yield from _decode_frames(model, *work)
    else:
        yield from _decode_rows(model, model.tail, *work)


def _decode_frames(
    model: Model,
    x_BCTHW: Tensor,
    bands: tuple[Band, ...],
    canvas: Canvas,
    comm: Comm,
    rows_per_block: int,
    fault: Fault | None,
) -> Iterator[Piece]:
    """Frame group by frame group; nothing of a group is kept once it is handed out."""
    frame, band = 0, bands[comm.rank]
    for group in model.frames(x_BCTHW):
        with band_mode(comm, bands, marks=model.decoder_marks, canvas=canvas):
            pixels = group()
        if fault and (what := finite.first_fault(comm, {"the decoded pixels": [pixels]})):
            raise fault(what)
        first = band.scaled(Fraction(pixels.shape[-2], band.rows)).start
        for row in range(0, pixels.shape[-2], rows_per_block):
            yield Piece(frame, first + row, pixels[..., row : row + rows_per_block, :])
        frame += pixels.shape[2]
        del pixels


def _decode_rows(
    model: Model,
    tail: Tail,
    x_BCTHW: Tensor,
    bands: tuple[Band, ...],
    canvas: Canvas,
    comm: Comm,
    rows_per_block: int,
    fault: Fault | None,
) -> Iterator[Piece]:
    """Row by row after the last norm; up to the first piece collective, then each alone."""
    with band_mode(comm, bands, marks=model.decoder_marks, canvas=canvas):
        features = model.features(x_BCTHW)
    band = bands[comm.rank]
    scale = Fraction(features.shape[-2], band.rows)
    pixel_band, height = band.scaled(scale), int(canvas.height * scale)
    total = merge([Moments(each) for each in comm.all_gather(_moments(features, tail))])
    if fault and not finite.is_finite([total.mean, total.m2]):  # the canvas': on all ranks alike
        raise fault("what the decoder makes of the latents")
    reach = _reach(tail)
    borrow = comm.borrow_around if "y" in canvas.wraps else comm.borrow
    bordered = borrow(features, Halo(reach, reach), dim=-2)
    del features
    for start in range(0, pixel_band.rows, rows_per_block):
        rows = Band(start, min(start + rows_per_block, pixel_band.rows))
        first = pixel_band.start + rows.start
        pixels = tail_rows(bordered, rows, first, height, tail, total, canvas.wraps)
        if fault and not finite.is_finite([pixels]):
            raise fault("the decoded pixels")
        yield Piece(0, first, pixels.unsqueeze(2))


def _moments(features: Tensor, tail: Tail) -> Tensor:
    return moments(features, tail.norm.num_groups).packed_3BG


def tail_rows(
    bordered: Tensor,
    rows: Band,
    first: int,
    height: int,
    tail: Tail,
    total: Moments,
    wraps: str = "",
) -> Tensor:
    """Pixels of a few rows: norm, activation and convolution on them and their borders."""
    reach = _reach(tail)
    piece = bordered[..., rows.start : rows.stop + 2 * reach, :]
    norm = tail.norm
    hidden = tail.activation(
        normalise(piece, norm.num_groups, norm.weight, norm.bias, norm.eps, total)
    )
    # The convolution's padding is zero after the activation, not the activation of zero.
    above = max(0, reach - first)
    below = max(0, first + rows.rows + reach - height)
    if above and "y" not in wraps:
        hidden[..., :above, :] = 0
    if below and "y" not in wraps:
        hidden[..., -below:, :] = 0
    conv = tail.conv
    if "x" in wraps:
        return F.conv2d(around(hidden, reach, reach), conv.weight, conv.bias)
    return F.conv2d(hidden, conv.weight, conv.bias, padding=(0, reach))


def _reach(tail: Tail) -> int:
    """Rows and columns that the last convolution reads around a pixel."""
    conv = tail.conv
    reach = conv.kernel_size[0] // 2
    assert (conv.padding, conv.stride) == ((reach, reach), (1, 1)), "not a 'same' convolution"
    return reach


def quantise(pixels_BCHW: Tensor, bits: int) -> np.ndarray:
    """[-1, 1] floats of the first picture to [H, W, 3] integers, rounded half to even."""
    top = 2**bits - 1
    unit = (pixels_BCHW[0].float() / 2 + 0.5).clamp(0, 1)
    kind = torch.uint8 if bits == 8 else torch.uint16
    levels = (unit * top).round().to(torch.int32).permute(1, 2, 0).to(kind)
    return np.ascontiguousarray(levels.cpu().numpy())
