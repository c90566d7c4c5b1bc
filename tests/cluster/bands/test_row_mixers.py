"""Functions that mix rows raise on a band, and no others do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import get_testing_overrides, resolve_name

from frieze.cluster.bands import ROW_MIXERS, row_mixer
from support.banded import (
    WIDTH,
    canvas,
    error,
    refused,
    weight_3x3,
)
from tolerances import EXACT_FLOAT64

MIXERS: dict[str, Callable[[Tensor], Any]] = {
    "conv2d": lambda x: F.conv2d(x, torch.ones(4, 4, 3, 3, dtype=x.dtype)),
    "conv2d unbatched": lambda x: F.conv2d(x[0], torch.ones(4, 4, 1, 1, dtype=x.dtype)),
    "conv_transpose2d": nn.ConvTranspose2d(4, 4, 4, stride=2, padding=1).double(),
    "pad reflect": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "pad ones": lambda x: F.pad(x, (1, 1, 1, 1), value=1.0),
    "pad crop": lambda x: F.pad(x, (0, 0, -1, -1)),
    "pad circular": nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular").double(),
    "interpolate corners": lambda x: F.interpolate(x, None, 2.0, "bilinear", align_corners=True),
    "interpolate trilinear": lambda x: F.interpolate(x[None], scale_factor=2.0, mode="trilinear"),
    "interpolate size": lambda x: F.interpolate(x, size=(7, 7)),
    "max_pool2d": lambda x: F.max_pool2d(x, 3, 2, 1),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 3, 1, 1),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 1),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, 1),
    "unfold": lambda x: F.unfold(x, 3),
    "unfold method": lambda x: x.unfold(2, 2, 2),
    "fold": lambda x: F.fold(x.flatten(1, 2)[:, :4], (2, WIDTH // 2), (1, 1)),
    "grid_sample": lambda x: F.grid_sample(
        x, torch.zeros(1, 2, 2, 2, dtype=x.dtype), align_corners=False
    ),
    "instance_norm": lambda x: F.instance_norm(x),
    "batch_norm": nn.BatchNorm2d(4).double().train(),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[-2:]),
    "rms_norm": lambda x: F.rms_norm(x, x.shape[1:]),
    "fft_fft2": torch.fft.fft2,
    "fft_fftn": lambda x: torch.fft.fftn(x, dim=(-2, -1)),
    "fft_fft": lambda x: torch.fft.fft(x, dim=2),
    "fft_fftshift": lambda x: torch.fft.fftshift(x, dim=(-2, -1)),
    "roll": lambda x: torch.roll(x, (1, 1), (2, 3)),
    "roll channels last": lambda x: x.movedim(1, -1).roll((1, 1), (1, 2)),
    "select": lambda x: x.select(2, 0),
    "narrow": lambda x: x.narrow(-2, 0, 1),
    "histc": lambda x: x.histc(3),
    "take_along_dim": lambda x: x.take_along_dim(torch.zeros_like(x, dtype=torch.long), 2),
    "roll all": lambda x: torch.roll(x, 1),
    "flip": lambda x: x.flip(2, 3),
    "flip dims": lambda x: torch.flip(x, dims=[-2]),
    "cumsum": lambda x: x.cumsum(2),
    "cumsum_": lambda x: x.clone().cumsum_(2),
    "sort": lambda x: x.sort(2),
    "argsort": lambda x: torch.argsort(x, dim=-2),
    "topk": lambda x: x.topk(2, 2),
    "mean": lambda x: x.mean(),
    "mean dims": lambda x: x.mean(dim=(2, 3)),
    "sum": lambda x: torch.sum(x, dim=[-1, -2]),
    "var": lambda x: x.var(2),
    "std": lambda x: torch.std(x, dim=(1, 2, 3), keepdim=True),
    "var_mean": lambda x: torch.var_mean(x),
    "amax": lambda x: x.amax((-1, -2)),
    "max": lambda x: x.max(),
    "max dim": lambda x: x.max(dim=2),
    "norm": lambda x: x.norm(),
    "linalg_vector_norm": lambda x: torch.linalg.vector_norm(x, dim=(2, 3)),
    "normalize": lambda x: F.normalize(x, dim=2),
    "quantile": lambda x: x.quantile(0.9, dim=2),
    "softmax": lambda x: x.softmax(2),
    "softmax tokens": lambda x: F.conv2d(x, weight_3x3(), padding=1).flatten(2).softmax(-1),
    "mean tokens": lambda x: F.group_norm(x, 2).flatten(2).transpose(1, 2).mean(1),
    "conv1d": lambda x: F.conv1d(
        F.group_norm(x, 2).flatten(2), torch.ones(4, 4, 3, dtype=x.dtype), padding=1
    ),
    "matmul": lambda x: F.group_norm(x, 2).flatten(2) @ x.flatten(2).mT,
    "einsum": lambda x: torch.einsum("bcs,bds->bcd", F.group_norm(x, 2).flatten(2), x.flatten(2)),
    "cat": lambda x: torch.cat([x, x], dim=2),
    "chunk": lambda x: x.chunk(2, dim=-2),
    "repeat": lambda x: x.repeat(1, 1, 2, 1),
    "index_select": lambda x: x.index_select(2, torch.tensor([0])),
    "lstm": lambda x: nn.LSTM(WIDTH, 4).double()(x[0]),
    "multi_head_attention_forward": lambda x: nn.MultiheadAttention(WIDTH, 1).double()(
        x[0], x[0], x[0]
    ),
    "_scaled_dot_product_flash_attention_for_cpu": lambda x: (
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(x, x, x)
    ),
}


@pytest.mark.parametrize("name", MIXERS)
def test_functions_that_mix_rows_raise(name: str) -> None:
    mixer = MIXERS[name]
    refused(mixer, canvas(1, 4), rf"^{name.split()[0]} on \(.*\): .+")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.mean(1, keepdim=True),
        lambda x: x.mean(-1, keepdim=True),
        lambda x: F.normalize(x, dim=1),
        lambda x: x.max(dim=1).values[:, None],
        lambda x: torch.maximum(x, x * x),
        lambda x: torch.max(x, x * x),
        lambda x: torch.cat([x, x], dim=1),
        lambda x: x.flip(-1),
        lambda x: x.flip(0, 1),
        lambda x: x.select(1, 2)[:, None],
        lambda x: x.narrow(1, 2, 1),
        lambda x: x.roll(2, 1),
        lambda x: x.movedim(1, -1).flip(-1).movedim(-1, 1),
        lambda x: x.sum(1, True),
        lambda x: x.std(1, keepdim=True),
        lambda x: torch.fft.rfft(x).real,
        lambda x: x.repeat_interleave(2, dim=2),
        lambda x: F.conv2d(x, weight_3x3()[:, :, :1, :1]),
    ],
)
def test_functions_within_rows_are_left_alone(function: Callable[[Tensor], Tensor]) -> None:
    assert error(function, canvas(1, 4)) <= EXACT_FLOAT64


def test_every_name_in_the_table_is_one_of_torch() -> None:
    known = {row for f in get_testing_overrides() if (row := getattr(f, "__name__", ""))}
    known |= {name.split("::")[1].split(".")[0] for name in torch._C._dispatch_get_all_op_names()}
    known |= {"_flash_attn_forward", "efficient_attention_forward_cutlass", "flex_attention"}
    assert not set(ROW_MIXERS) - known


def test_functions_methods_and_in_place_twins_share_an_entry() -> None:
    for function in (torch.cumsum, Tensor.cumsum, Tensor.cumsum_, torch.ops.aten.cumsum.default):
        assert row_mixer(function) is ROW_MIXERS["cumsum"], resolve_name(function)
