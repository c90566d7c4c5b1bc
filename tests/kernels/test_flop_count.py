"""FLOPs are those of the shapes, whether tensors have values or not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from frieze.kernels.attention import attend
from frieze.kernels.flop_count import add_work, current_work, flop_count
from frieze.kernels.meta_results import MetaResults
from frieze.kernels.work import Work


def rows(x: Tensor) -> Tensor:
    return F.linear(x, x.new_zeros(7, 5), x.new_zeros(7))


def maps(x: Tensor) -> Tensor:
    return F.conv2d(x.new_zeros(1, 4, 9, 9), x.new_zeros(6, 4, 3, 3), stride=2, padding=1)


def answers(x: Tensor) -> Tensor:
    q = x.new_zeros(2, 3, 10, 8)
    k = x.new_zeros(2, 3, 13, 8)
    return attend(q, k, k, backend="cpu_flash").out_BHSD


CASES = {
    rows: 2 * 11 * 5 * 7,
    maps: 2 * 5 * 5 * 6 * 4 * 3 * 3,
    answers: 4 * 2 * 3 * 10 * 13 * 8,
    lambda x: (x + 1).softmax(-1): 0,
}


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_flops_are_those_of_the_formulas(device: str) -> None:
    x = torch.zeros(11, 5, device=device)
    for work, flops in CASES.items():
        with flop_count(MetaResults()) as count:
            for _ in range(3):
                work(x)
            add_work(current_work())
        assert count.total == 2 * 3 * flops
    assert current_work() == Work()


def test_a_remembered_result_is_the_operation_s_own() -> None:
    """Layouts too, and dtypes, which equal numbers of other types decide."""
    x = torch.empty(2, 6, 8, 4, device="meta").transpose(1, 3)
    half = torch.empty(6, device="meta", dtype=torch.float16)
    known = MetaResults()
    aten = torch.ops.aten
    calls = [
        (aten.add.Tensor, (x, 1), {}),
        (aten.mul.Tensor, (torch.empty(3, dtype=torch.int64, device="meta"), 1), {}),
        (aten.mul.Tensor, (torch.empty(3, dtype=torch.int64, device="meta"), 1.0), {}),
        (aten.silu.default, (x,), {}),
        (aten.native_layer_norm.default, (x, [6], half.float(), None, 1e-5), {}),
        (aten.cat.default, ([x, x], 2), {}),
        (aten._to_copy.default, (half,), {"dtype": torch.float32}),
        (aten.clone.default, (x,), {"memory_format": torch.contiguous_format}),
        (aten.view.default, (half, [2, 3]), {}),
    ]
    for _ in range(2):
        for func, args, kwargs in calls:
            own, got = func(*args, **kwargs), known.run(func, args, kwargs)
            own, got = ([y] if isinstance(y, Tensor) else y for y in (own, got))
            for a, b in zip(own, got, strict=True):
                assert (a.shape, a.stride(), a.dtype) == (b.shape, b.stride(), b.dtype), func
    view = known.run(aten.view.default, (half, [2, 3]), {})
    assert view.untyped_storage()._cdata == half.untyped_storage()._cdata
    filled = known.run(aten.fill_.Scalar, (half, 1.0), {})
    assert filled is half
