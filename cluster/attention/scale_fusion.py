"""Attention that mixes scales: fine structure of the whole canvas, coarse structure of windows.

FreeScale (Qiu et al. 2024, arXiv 2412.09626, eq. 7): h = h_global + G(h_local - h_global), with a
Gaussian G over the canvas.  G is separable and linear.  Rows and columns commute with a layer's
output projection, whose bias cancels in the difference, so one projection does; where G runs over
features too, it acts on what the projection has made of both answers.

Shape suffixes: B batch, H heads, S tokens, T frames, R rows, C columns, D head dim, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from frieze.kernels.reference import wide

from ..comm import AxisComms, Comm
from ..layout import Band, LayoutError, TokenGrid
from .pooled_attention import pooled_context_attention
from .pooled_context import PooledContext
from .resizing import resized, resized_bands
from .sequence_parallel import Context, canvas_attention, text_rows
from .windowed_attention import window_attention
from .windows import Windows

FusionAxes = Literal["hw", "hwc", "wc"]


@dataclass(frozen=True)
class ScaleFusion:
    """How the answers of windows and of the whole canvas become one.

    `size` is the Gaussian's, in tokens and odd, `sigma` its standard deviation.  `axes` names what
    it runs over: rows and columns (`hw`, the paper's equation), these and features (`hwc`, the
    code as released since March 2025), columns and features (`wc`, as released before).  Answers
    of the `coarse` windows, interleaved sub-grids, stand for those of the whole canvas where given.
    """

    size: int
    sigma: float = 1.0
    axes: FusionAxes = "hwc"
    coarse: Windows | None = None

    def __post_init__(self) -> None:
        if self.size < 1 or self.size % 2 == 0 or not self.sigma > 0:
            raise LayoutError(
                f"a Gaussian of size {self.size} and sigma {self.sigma}: the size must be odd and "
                "at least 1, sigma above 0"
            )


@dataclass(frozen=True)
class AttentionShape:
    """What the queries of a layer ask: windows alone, or the canvas too, pooled or in fusion.

    What is `pooled` has windows of its own, which these must be, and is not fused.  With a `grid`
    queries, keys and values are resized bicubically to so many rows and columns, of which the
    windows are, no fewer than there are, and the answers are resized back.
    """

    windows: Windows
    fusion: ScaleFusion | None = None
    grid: tuple[int, int] | None = None
    pooled: PooledContext | None = None

    @staticmethod
    def of_pooled(pooled: PooledContext) -> AttentionShape | None:
        """Windows and the rest of the canvas pooled; None where that is all there is, as it is."""
        return None if pooled.is_whole else AttentionShape(pooled.windows, pooled=pooled)

    @property
    def fuses_features(self) -> bool:
        """Whether `shaped_attention` answers twice, for `fused_features` behind the layer."""
        return self.fusion is not None and "c" in self.fusion.axes


def shaped_attention(
    q_BHSD: Tensor,
    k_BHSD: Tensor,
    v_BHSD: Tensor,
    *,
    comms: AxisComms,
    grid: TokenGrid,
    shape: AttentionShape,
    scale: float | None = None,
    context: Context | None = None,
) -> Tensor:
    """Attention of this rank's image tokens as `shape` says; text asks the whole canvas always.

    Arguments as in `window_attention`, with the context's text tokens before or after the image's
    and seen by every window.  [B, H, S, D]; where features are fused [B, H, 2 S, D], the answers
    of the canvas before those that are fused over rows and columns: what the layer's projection
    makes of them goes to `fused_features`.
    """
    context = Context(0) if context is None else context
    qkv = (q_BHSD, k_BHSD, v_BHSD)
    if shape.grid is not None:
        resizing = _Resizing(comms.world, grid, shape.grid)
        same = partial(shaped_attention, comms=comms, scale=scale)
        return _resized_attention(same, qkv, resizing, replace(shape, grid=None), context)
    (_, q), (k_text, k), (v_text, v) = (context.split(x) for x in qkv)
    asked: dict[str, Any] = {
        "comms": comms,
        "grid": grid,
        "scale": scale,
        "text": (k_text, v_text) if context.num_tokens else None,
    }
    if shape.pooled is not None:
        local = pooled_context_attention(q, k, v, pooled=shape.pooled, **asked)
        return context.join(_of_text(qkv, context, comms, scale), local)
    in_windows = partial(window_attention, q, k, v, **asked)
    fusion, image = shape.fusion, None
    if fusion is not None and fusion.coarse is None:
        whole = canvas_attention(
            *qkv, comms=comms, tokens=grid.tokens, scale=scale, context=context
        )
        text, image = context.split(whole)
    else:
        text = _of_text(qkv, context, comms, scale)
        if fusion is not None and fusion.coarse is not None:
            image = in_windows(windows=fusion.coarse)
    local = in_windows(windows=shape.windows)
    if fusion is None or image is None:
        return context.join(text, local)
    fused = context.join(text, _fused(image, local, grid, comms.world, fusion))
    return torch.cat((context.join(text, image), fused), dim=2) if shape.fuses_features else fused


class _Resizing(NamedTuple):
    """A grid of tokens, and the rows and columns of a larger one."""

    comm: Comm
    grid: TokenGrid
    size: tuple[int, int]

    @property
    def larger(self) -> TokenGrid:
        return TokenGrid(
            self.grid.frames, resized_bands(self.grid.bands, self.size[0]), self.size[1]
        )

    def up(self, x: Tensor) -> Tensor:
        """This rank's tokens of the larger grid, dim 2."""
        return self._resized(x, self.grid, self.larger)

    def down(self, x: Tensor) -> Tensor:
        """The way back."""
        return self._resized(x, self.larger, self.grid)

    def _resized(self, x: Tensor, old: TokenGrid, new: TokenGrid) -> Tensor:
        tokens = x.unflatten(2, (old.frames, -1, old.columns))
        return resized(tokens, self.comm, old.bands, new.bands, new.columns).flatten(2, 4)


def _resized_attention(
    attention: Callable[..., Tensor],
    qkv: Sequence[Tensor],
    resizing: _Resizing,
    shape: AttentionShape,
    context: Context,
) -> Tensor:
    """Attention on a larger grid of image tokens; text stays as it is."""
    parts = [context.split(x) for x in qkv]
    larger = [context.join(text, resizing.up(image)) for text, image in parts]
    out = attention(*larger, grid=resizing.larger, shape=shape, context=context)
    answers = out.chunk(2, dim=2) if shape.fuses_features else [out]
    split = [context.split(each) for each in answers]
    return torch.cat([context.join(text, resizing.down(image)) for text, image in split], dim=2)


def _of_text(
    qkv: tuple[Tensor, Tensor, Tensor], context: Context, comms: AxisComms, scale: float | None
) -> Tensor:
    """What the canvas answers the text, which has no place in windows."""
    (q_text, _), (k_text, k), (v_text, v) = (context.split(x) for x in qkv)
    if not context.num_tokens:
        return q_text
    return text_rows(q_text, k, v, k_text, v_text, comms.world, scale).to(q_text.dtype)


def _fused(
    whole: Tensor, local: Tensor, grid: TokenGrid, comm: Comm, fusion: ScaleFusion
) -> Tensor:
    """g + G(l - g) over rows and columns."""
    accumulate, shape = wide(whole.dtype), (grid.frames, grid.bands[comm.rank].rows, grid.columns)
    apart = (local.to(accumulate) - whole.to(accumulate)).unflatten(2, shape)
    return (whole + low_pass(apart, comm, grid.bands, fusion).flatten(2, 4)).to(whole.dtype)


def fused_features(out_BSF: Tensor, fusion: ScaleFusion) -> Tensor:
    """The layer's output from what it made of both answers, [B, 2 S, F] -> [B, S, F]."""
    # A layer's hooks run inside the mode, to which a convolution along features is one of rows.
    with torch._C.DisableTorchFunction():
        whole, fused = out_BSF.to(wide(out_BSF.dtype)).chunk(2, dim=1)
        lines = (fused - whole).reshape(-1, 1, whole.shape[-1])
        weights = gaussian_kernel(fusion.size, fusion.sigma).to(lines)
        coarse = F.conv1d(lines, weights.view(1, 1, -1), padding=fusion.size // 2)
        return (whole + coarse.view_as(whole)).to(out_BSF.dtype)


def low_pass(x: Tensor, comm: Comm, bands: Sequence[Band], fusion: ScaleFusion) -> Tensor:
    """This band of the canvas' Gaussian over rows and columns, with zeros around the canvas.

    x is [..., R, C, D].  Rows come from as many bands as the Gaussian spans, however low they are.
    Where the fusion's axes have no rows, columns alone.
    """
    weights = gaussian_kernel(fusion.size, fusion.sigma).to(x)
    reach, features = fusion.size // 2, x.shape[-1]
    if "h" in fusion.axes:
        x = _with_rows_around(x, comm, bands, reach)
    maps = x.flatten(-2).reshape(-1, 1, x.shape[-3], x.shape[-2] * features)
    if "h" in fusion.axes:
        maps = F.conv2d(maps, weights.view(1, 1, -1, 1))
    maps = F.conv2d(
        maps, weights.view(1, 1, 1, -1), padding=(0, reach * features), dilation=(1, features)
    )
    return maps.view(*x.shape[:-3], maps.shape[-2], *x.shape[-2:])


def _with_rows_around(x: Tensor, comm: Comm, bands: Sequence[Band], reach: int) -> Tensor:
    """The band with `reach` more rows of the canvas on either side; beyond the canvas zeros."""
    height = bands[-1].stop
    wanted = [range(max(b.start - reach, 0), min(b.stop + reach, height)) for b in bands]
    rows, own = wanted[comm.rank], bands[comm.rank]
    above, below = rows.start - (own.start - reach), own.stop + reach - rows.stop
    return F.pad(comm.gather_rows(x, bands, wanted, -3), (0, 0, 0, 0, above, below))


def gaussian_kernel(size: int, sigma: float) -> Tensor:
    """Weights of a sampled Gaussian that add up to 1, float64 [size]."""
    x = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    weights = torch.exp(-(x**2) / (2 * sigma**2))
    return weights / weights.sum()
