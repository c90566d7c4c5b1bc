"""Every torch function known to mix the rows of a canvas, and what becomes of it on a band.

`ROW_MIXERS` is the whole list.  A function either has a meaning that spans bands (`Spans`:
`BandMode` computes it exactly), or is held to a condition under which it stays within rows
(`Over`, and the functions named `*_rows`), or is refused.  Functions that are not listed are taken
to work within rows: linear layers, activations, norms over channels, reshapes of whole rows.

Shape suffixes: B batch, C channels, T frames, H rows, W columns, S tokens, D features.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import Tensor

from ..layout import LayoutError
from .tensor_shapes import CanvasShapes

# A condition answers why the call cannot be left to a band alone, or None where it can.
Condition = Callable[..., str | None]


@dataclass(frozen=True)
class Spans:
    """Computed exactly across bands, by what `BandMode` has under this name."""

    meaning: str


@dataclass(frozen=True)
class Over:
    """Works along the dims in argument `position` (None = all of them): refused along rows."""

    position: int
    default: Any = None
    maps_only: bool = False
    takes_many: bool = False  # x.flip(2, 3)

    def __call__(self, canvas: CanvasShapes, *args: Any, **kwargs: Any) -> str | None:
        x, dims = _first(args, kwargs), self._dims(args, kwargs)
        if not isinstance(x, Tensor) or isinstance(dims, Tensor):
            return None  # max(x, y) and its like compare two tensors element by element
        if self.maps_only and not canvas.is_map(x):
            return None
        ndim = max(x.ndim, 1)
        over = range(x.ndim) if dims is None else {d % ndim for d in _tuple(dims)}
        rows = canvas.row_dims(x) & set(over)
        if not rows:
            return None
        return (
            f"it works along dim {min(rows)}, where other bands hold more rows; group_norm and "
            "marked attention span bands, other statistics need the whole canvas"
        )

    def _dims(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        for name in ("dim", "dims", "axis"):
            if name in kwargs:
                return kwargs[name]
        given = args[self.position :]
        if not given or isinstance(given[0], bool):
            return self.default
        return given if self.takes_many and isinstance(given[0], int) else given[0]


def _first(args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The tensor a call works on; of a list of tensors the first."""
    x = args[0] if args else next((kwargs[k] for k in ("input", "self", "x") if k in kwargs), None)
    if x is None:
        x = kwargs.get("tensors")
    return x[0] if isinstance(x, (list, tuple)) and x else x


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _of_rows(value: Any) -> int:
    """The entry for rows of an int, or of a sequence over (..., rows, columns)."""
    values = _tuple(value)
    return int(values[-2] if len(values) > 1 else values[0])


def _refused(reason: str) -> Condition:
    return lambda *args, **kwargs: reason


def _edges_fall_between(canvas: CanvasShapes, resolution: Fraction) -> str | None:
    try:
        canvas.at(resolution)
    except LayoutError as error:
        return str(error)
    return None


def windows_within_rows(
    canvas: CanvasShapes,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    *rest: Any,
    **options: Any,
) -> str | None:
    """Pooling stays within a band where windows tile it: kernel = stride, no padding, aligned."""
    kernel = _of_rows(kernel_size)
    step = kernel if stride is None or stride == [] else _of_rows(stride)
    if kernel != step or _of_rows(padding) or (kernel > 1 and _of_rows(dilation) > 1):
        return f"windows of {kernel} rows every {step} reach other bands; only kernel = stride can"
    canvas.learn_map(input)
    return _edges_fall_between(canvas, canvas.resolution(input.shape[-2]) / step)


def averages_within_rows(
    canvas: CanvasShapes,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    *rest: Any,
    **options: Any,
) -> str | None:
    """The same for average pooling, which knows no dilation."""
    return windows_within_rows(canvas, input, kernel_size, stride, padding)


def transposed_within_rows(
    canvas: CanvasShapes,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> str | None:
    """A transposed convolution stays within a band where each row makes rows of its own."""
    kernel, step, spread = weight.shape[-2], _of_rows(stride), _of_rows(dilation)
    if kernel != step or _of_rows(padding) or _of_rows(output_padding) or spread > 1:
        return f"kernel {kernel} at stride {step} lets rows overlap; only kernel = stride can"
    canvas.learn_map(input)
    return None


def nearest_within_rows(
    canvas: CanvasShapes,
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    *rest: Any,
    **options: Any,
) -> str | None:
    """Nearest interpolation stays within a band whose edges fall on rows of the result."""
    if input.ndim < 4:
        return None
    if mode not in ("nearest", "nearest-exact"):
        return f"mode {mode!r} blends frames too; nearest, nearest-exact, bilinear and bicubic can"
    canvas.learn_map(input)
    rows = input.shape[-2]
    scale = row_scale(rows, size, scale_factor)
    return _edges_fall_between(canvas, canvas.resolution(rows) * scale)


def row_scale(rows: int, size: Any, scale_factor: Any) -> Fraction:
    """By how much an interpolation grows that many rows."""
    if size is not None:
        return Fraction(_of_rows(size), rows)
    values = _tuple(scale_factor)
    return Fraction(values[-2] if len(values) > 1 else values[0]).limit_denominator(1 << 12)


def normalised_within_rows(
    canvas: CanvasShapes, input: Tensor, normalized_shape: Sequence[int], *a: Any, **k: Any
) -> str | None:
    """Layer and RMS norms stay within a row where they span the last dim alone."""
    if len(normalized_shape) > 1:
        return f"it spans the last {len(normalized_shape)} dims; a norm over one can"
    return None


def recorded_statistics(
    canvas: CanvasShapes,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    measures: bool = False,
    *rest: Any,
    training: bool = False,
    use_input_stats: bool | None = None,
    **options: Any,
) -> str | None:
    """Batch and instance norm stay within rows where their statistics were recorded before."""
    if training or measures or use_input_stats or running_mean is None:
        return "its statistics would be this band's alone; eval() with recorded ones, or group_norm"
    return None


def softmax_within_rows(
    canvas: CanvasShapes, input: Tensor, dim: int | None = None, *rest: Any, **options: Any
) -> str | None:
    """A softmax over as many elements as the band has tokens is attention written out by hand."""
    if dim is not None and input.ndim and input.shape[dim] in canvas.token_counts:
        return (
            "it weighs this band's tokens alone; mark the layer and let it call "
            "scaled_dot_product_attention"
        )
    return Over(1)(canvas, input, dim)


def contraction_within_rows(canvas: CanvasShapes, *args: Any, **kwargs: Any) -> str | None:
    """A product of two batched tensors that sums over the band's tokens (linear attention)."""
    factors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)][-2:]
    if len(factors) == 2 and min(x.ndim for x in factors) > 2:
        tokens = factors[0].shape[-1]
        if tokens in canvas.token_counts:
            return f"it sums over {tokens} tokens, and other bands hold more; marked attention can"
    return None


def einsum_within_rows(canvas: CanvasShapes, equation: Any, *operands: Any) -> str | None:
    """An einsum whose summed indices run over the band's tokens."""
    if not isinstance(equation, str) or "->" not in equation:
        return "write it as 'indices,indices->indices' so that its sums can be checked"
    inputs, output = equation.replace(" ", "").split("->")
    tensors = operands if isinstance(operands[0], Tensor) else operands[0]
    for indices, x in zip(inputs.split(","), tensors, strict=True):
        before, _, after = indices.partition("...")
        sizes = [*zip(before, x.shape, strict=False)]
        sizes += zip(reversed(after), reversed(x.shape), strict=False)
        for index, size in sizes:
            if index not in output and size in canvas.token_counts:
                return f"it sums over {index!r}, {size} tokens; marked attention can"
    return None


def line_within_rows(canvas: CanvasShapes, input: Tensor, *rest: Any, **options: Any) -> str | None:
    """Convolution and pooling along a line, unless it is the line of the band's tokens."""
    if input.shape[-1] in canvas.token_counts:
        return "it runs along this band's tokens, across rows; conv2d over rows and columns can"
    return None


def repeats_within_rows(canvas: CanvasShapes, input: Tensor, *repeats: Any) -> str | None:
    """Copies of a map side by side, unless they are stacked."""
    counts = _tuple(repeats[0]) if len(repeats) == 1 else repeats
    if canvas.is_map(input) and len(counts) > 1 and counts[-2] != 1:
        return "it stacks copies of this band; repeat_interleave can"
    return None


_ANYWHERE = _refused("it reads rows that other bands hold; conv2d, group_norm and nearest can")
_KERNEL = _refused("an attention kernel called directly; scaled_dot_product_attention can")
_BLENDS = _refused("an operator that blends rows; interpolate can")


def _each(names: str, mixer: Spans | Condition) -> dict[str, Spans | Condition]:
    return dict.fromkeys(names.split(), mixer)


# Names are `__name__`s without the underscore of in-place twins: function, method or operator.
ROW_MIXERS: dict[str, Spans | Condition] = {
    # exact across bands
    **_each("conv2d conv3d", Spans("convolve")),
    **_each("pad", Spans("pad")),
    **_each("constant_pad_nd", Spans("constant_pad_nd")),
    **_each("group_norm", Spans("group_norm")),
    **_each("interpolate", Spans("interpolate")),
    **_each("scaled_dot_product_attention", Spans("attend")),
    # within rows under a condition
    **_each("conv1d conv_transpose1d avg_pool1d max_pool1d lp_pool1d", line_within_rows),
    **_each("adaptive_avg_pool1d adaptive_max_pool1d", line_within_rows),
    **_each("repeat tile", repeats_within_rows),
    **_each("conv_transpose2d conv_transpose3d", transposed_within_rows),
    **_each("max_pool2d max_pool2d_with_indices", windows_within_rows),
    **_each("max_pool3d max_pool3d_with_indices", windows_within_rows),
    **_each("avg_pool2d avg_pool3d", averages_within_rows),
    **_each("layer_norm rms_norm native_layer_norm", normalised_within_rows),
    **_each("batch_norm instance_norm", recorded_statistics),
    **_each("softmax log_softmax softmin", softmax_within_rows),
    **_each("matmul bmm baddbmm addbmm", contraction_within_rows),
    **_each("einsum", einsum_within_rows),
    # refused along rows
    **_each("mean nanmean sum nansum prod var std var_mean std_mean logsumexp", Over(1)),
    **_each("amax amin aminmax max min argmax argmin median nanmedian mode", Over(1)),
    **_each("cumsum cumprod cummax cummin logcumsumexp count_nonzero", Over(1)),
    **_each("unique histc histogram bincount dist", Over(9)),
    **_each("flip", Over(1, takes_many=True)),
    **_each("index_select index_add index_copy index_fill gather", Over(1)),
    **_each("take_along_dim", Over(2)),
    **_each("scatter scatter_add scatter_reduce", Over(1)),
    **_each("sort argsort", Over(1, default=-1)),
    **_each("msort flipud", Over(9, default=0)),
    **_each("fliplr", Over(9, default=1)),
    **_each("rot90", Over(2, default=(0, 1))),
    **_each("roll norm linalg_norm linalg_vector_norm quantile nanquantile", Over(2)),
    **_each("topk kthvalue diff", Over(2, default=-1)),
    **_each("linalg_matrix_norm", Over(2, default=(-2, -1))),
    **_each("linalg_svd linalg_qr linalg_eigh linalg_inv", Over(9, default=(-2, -1))),
    **_each("cosine_similarity", Over(2, default=1)),
    **_each("normalize", Over(2, default=1)),
    **_each("trapezoid trapz cumulative_trapezoid", Over(9, default=-1)),
    **_each("fft_fft fft_ifft fft_rfft fft_irfft fft_hfft fft_ihfft", Over(2, default=-1)),
    **_each("fft_fft2 fft_ifft2 fft_rfft2", Over(2, default=(-2, -1))),
    **_each("fft_irfft2 fft_hfft2 fft_ihfft2", Over(2, default=(-2, -1))),
    **_each("fft_fftn fft_ifftn fft_rfftn fft_irfftn fft_hfftn fft_ihfftn", Over(2)),
    **_each("fft_fftshift fft_ifftshift", Over(1)),
    **_each("cat concat concatenate", Over(1, default=0, maps_only=True)),
    **_each("split chunk tensor_split", Over(2, default=0, maps_only=True)),
    **_each("unbind select narrow", Over(1, default=0, maps_only=True)),
    # refused
    **_each("adaptive_avg_pool2d adaptive_avg_pool3d", _ANYWHERE),
    **_each("adaptive_max_pool2d adaptive_max_pool3d", _ANYWHERE),
    **_each("adaptive_max_pool2d_with_indices adaptive_max_pool3d_with_indices", _ANYWHERE),
    **_each("fractional_max_pool2d fractional_max_pool2d_with_indices", _ANYWHERE),
    **_each("fractional_max_pool3d fractional_max_pool3d_with_indices", _ANYWHERE),
    **_each("lp_pool2d lp_pool3d max_unpool2d max_unpool3d", _ANYWHERE),
    **_each("fold unfold im2col col2im grid_sample grid_sampler affine_grid", _ANYWHERE),
    **_each("grid_sampler_2d grid_sampler_3d affine_grid_generator", _ANYWHERE),
    **_each("convolution _convolution conv_tbc native_group_norm native_batch_norm", _ANYWHERE),
    **_each("cdist pdist cov corrcoef tensordot kron lstm gru rnn_tanh rnn_relu", _ANYWHERE),
    **_each("upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d", _BLENDS),
    **_each("_upsample_bilinear2d_aa _upsample_bicubic2d_aa", _BLENDS),
    **_each("multi_head_attention_forward _native_multi_head_attention", _KERNEL),
    **_each("_transformer_encoder_layer_fwd flex_attention _flash_attn_forward", _KERNEL),
    **_each("_scaled_dot_product_flash_attention _scaled_dot_product_attention_math", _KERNEL),
    **_each("_scaled_dot_product_flash_attention_for_cpu", _KERNEL),
    **_each("_scaled_dot_product_efficient_attention", _KERNEL),
    **_each("_scaled_dot_product_cudnn_attention efficient_attention_forward_cutlass", _KERNEL),
}


@functools.cache
def row_mixer(function: Any) -> Spans | Condition | None:
    """What becomes of a torch function on a band; None: it works within rows."""
    name = getattr(function, "__name__", "").split(".")[0]  # operators end in an overload's name
    if not name.endswith("__"):
        name = name.rstrip("_")  # cumsum_ is cumsum in place
    return ROW_MIXERS.get(name)
