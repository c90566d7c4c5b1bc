"""Every attention backend of this machine against the specification, on awkward inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from frieze.kernels import backends, reference
from frieze.kernels.attention import AttentionPartial, attend
from tolerances import EXACT_FLOAT32, EXACT_FLOAT64, HALF

TOLERANCES = {
    torch.float64: EXACT_FLOAT64,
    torch.float32: EXACT_FLOAT32,
    torch.bfloat16: HALF,
    torch.float16: HALF,
}
ON_CUDA = ["reference", "efficient", "triton", "cudnn", "flash"]
if not backends.TABLE["xformers"].missing():
    ON_CUDA.append("xformers")
PLACES = [
    pytest.param(("cpu", name), id=f"cpu-{name}") for name in ("reference", "cpu_flash", "triton")
] + [pytest.param(("cuda", name), id=f"cuda-{name}", marks=pytest.mark.gpu) for name in ON_CUDA]
MAX_HEAD_DIM = {"triton": 128, "cudnn": 128, "flash": 256, "xformers": 256}
HALF_ONLY = ("cudnn", "flash", "xformers")


class Shape(NamedTuple):
    batch: int
    num_heads: int
    num_queries: int
    num_keys: int
    head_dim: int

    def __str__(self) -> str:
        return "B{}-H{}-S{}-K{}-D{}".format(*self)


SHAPES = [
    Shape(1, 1, 1, 1, 16),
    Shape(1, 1, 500, 1, 16),
    Shape(1, 3, 63, 65, 40),
    Shape(2, 3, 65, 500, 72),
    Shape(1, 1, 500, 63, 128),
    Shape(1, 1, 65, 63, 512),
]
LAYOUTS = ("heads_first", "tokens_first", "dims_first", "every_other_token", "one_head_for_all")


def tensor(batch: int, heads: int, tokens: int, dim: int, layout: str) -> Tensor:
    """A random [B, H, S, D] whose memory is laid out in some other way."""
    match layout:
        case "tokens_first":
            return torch.randn(batch, tokens, heads, dim, dtype=torch.float64).transpose(1, 2)
        case "dims_first":
            return torch.randn(batch, heads, dim, tokens, dtype=torch.float64).mT
        case "every_other_token":
            return torch.randn(batch, heads, 2 * tokens, dim, dtype=torch.float64)[:, :, ::2]
        case "one_head_for_all":
            return torch.randn(batch, 1, tokens, dim, dtype=torch.float64).expand(-1, heads, -1, -1)
    return torch.randn(batch, heads, tokens, dim, dtype=torch.float64)


def inputs(shape: Shape, layout: str, value_dim: int | None = None) -> tuple[Tensor, ...]:
    batch, heads, queries, keys, dim = shape
    sizes = ((queries, dim), (keys, dim), (keys, value_dim or dim))
    return tuple(tensor(batch, heads, tokens, size, layout) for tokens, size in sizes)


def cast(x: Tensor, place: tuple[str, str], dtype: torch.dtype) -> Tensor:
    """The same strides on another device and in another dtype."""
    moved = torch.empty_strided(x.shape, x.stride(), dtype=dtype, device=place[0])
    return moved.copy_(x) if x.stride(1) or x.shape[1] == 1 else x[:, :1].to(moved).expand_as(x)


@pytest.fixture
def run(interpreted: Callable[..., Any], poisoned_ops: None) -> Callable[..., AttentionPartial]:
    """`run(place, q, k, v, ...)`: attend by that backend, on the tensors' own device."""

    def on(place: tuple[str, str], *tensors: Tensor, **options: Any) -> AttentionPartial:
        options["backend"] = place[1]
        if place == ("cpu", "triton"):
            return interpreted(attend, *tensors, **options)
        return attend(*tensors, **options)

    return on


def assert_matches(
    partial: AttentionPartial, q: Tensor, k: Tensor, v: Tensor, scale: float, tolerance: float
) -> None:
    out, lse = reference.attend(*(x.cpu().double() for x in (q, k, v)), scale=scale)
    assert partial.out_BHSD.dtype == v.dtype
    assert partial.lse_BHS.dtype == reference.wide(q.dtype)
    assert partial.out_BHSD.shape == out.shape
    assert partial.lse_BHS.shape == lse.shape
    error = (partial.out_BHSD.cpu().double() - out).abs().max()
    assert error <= tolerance * v.abs().max().item()
    lse_error = (partial.lse_BHS.cpu().double() - lse).abs().max()
    assert lse_error <= tolerance * max(1.0, lse.abs().max().item())


def supports(name: str, shape: Shape, dtype: torch.dtype) -> bool:
    if name in HALF_ONLY and dtype not in (torch.float16, torch.bfloat16):
        return False
    if dtype == torch.float64 and name not in ("reference", "cpu_flash"):
        return False
    if name == "cudnn" and 1 in (shape.num_queries, shape.num_keys):
        return False
    return shape.head_dim <= MAX_HEAD_DIM.get(name, shape.head_dim)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=lambda dtype: str(dtype).split(".")[1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("place", PLACES)
def test_backends_match_the_reference_or_refuse(
    run: Callable[..., AttentionPartial],
    place: tuple[str, str],
    shape: Shape,
    dtype: torch.dtype,
) -> None:
    q, k, v = (cast(x, place, dtype) for x in inputs(shape, "tokens_first"))
    if supports(place[1], shape, dtype):
        scale = shape.head_dim**-0.5
        assert_matches(run(place, q, k, v), q, k, v, scale, TOLERANCES[dtype])
    else:
        with pytest.raises(ValueError, match=f"attention backend {place[1]} cannot do"):
            run(place, q, k, v)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("place", PLACES)
def test_strides_do_not_matter(
    run: Callable[..., AttentionPartial], place: tuple[str, str], layout: str
) -> None:
    dtype = torch.bfloat16 if place[1] in HALF_ONLY else torch.float32
    q, k, v = (cast(x, place, dtype) for x in inputs(Shape(2, 3, 63, 65, 40), layout))
    assert layout == "heads_first" or not all(x.is_contiguous() for x in (q, k, v))
    assert_matches(run(place, q, k, v, scale=0.3), q, k, v, 0.3, TOLERANCES[dtype])


@pytest.mark.parametrize("place", PLACES)
def test_large_logits_neither_overflow_nor_blur(
    run: Callable[..., AttentionPartial], place: tuple[str, str]
) -> None:
    """Small integers make logits of hundreds exact in every dtype; exp overflows beyond 88."""
    dtype = torch.bfloat16 if place[1] in HALF_ONLY else torch.float32
    q, k, v = inputs(Shape(1, 2, 65, 200, 16), "heads_first")
    q, k, v = (cast(x, place, dtype) for x in ((q * 6).round(), (k * 6).round(), v))
    assert (q @ k.mT).abs().max() > 400
    assert_matches(run(place, q, k, v, scale=1.0), q, k, v, 1.0, TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("place", PLACES)
def test_a_query_with_one_huge_logit_gets_that_value(
    run: Callable[..., AttentionPartial], place: tuple[str, str], dtype: torch.dtype
) -> None:
    if not supports(place[1], Shape(1, 1, 16, 16, 16), dtype):
        return
    q = cast(64 * torch.eye(16, dtype=torch.float64).expand(1, 1, 16, 16).clone(), place, dtype)
    v = cast(torch.randn(1, 1, 16, 16, dtype=torch.float64), place, dtype)
    partial = run(place, q, q, v, scale=4.0)
    # The memory-efficient kernel multiplies float32 as a sum of rounded parts.
    rounds = place == ("cuda", "efficient") and dtype == torch.float32
    assert (partial.out_BHSD - v).abs().max() <= (EXACT_FLOAT32 if rounds else 0)
    assert torch.equal(partial.lse_BHS.cpu(), torch.full((1, 1, 16), 4.0 * 64 * 64))


@pytest.mark.parametrize("queries_and_keys", [(5, 0), (0, 5), (0, 0)])
@pytest.mark.parametrize("place", PLACES)
def test_no_keys_give_zero_and_minus_infinity(
    run: Callable[..., AttentionPartial], place: tuple[str, str], queries_and_keys: tuple[int, int]
) -> None:
    dtype = torch.bfloat16 if place[1] in HALF_ONLY else torch.float32
    shape = Shape(1, 2, *queries_and_keys, 16)
    partial = run(place, *(cast(x, place, dtype) for x in inputs(shape, "heads_first", 24)))
    assert partial.out_BHSD.shape == (1, 2, queries_and_keys[0], 24)
    assert (partial.out_BHSD == 0).all()
    assert (partial.lse_BHS == -torch.inf).all()


@pytest.mark.parametrize(("head_dim", "value_dim"), [(16, 40), (80, 24)])
@pytest.mark.parametrize(
    "place", [p for p in PLACES if p.values[0][1] in ("reference", "triton", "efficient")]
)
def test_values_may_have_another_head_dim(
    run: Callable[..., AttentionPartial], place: tuple[str, str], head_dim: int, value_dim: int
) -> None:
    shape = Shape(1, 2, 65, 63, head_dim)
    tensors = inputs(shape, "tokens_first", value_dim)
    q, k, v = (cast(x, place, torch.float32) for x in tensors)
    assert_matches(run(place, q, k, v, scale=0.2), q, k, v, 0.2, EXACT_FLOAT32)


def test_reference_in_runs_of_queries_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = inputs(Shape(1, 2, 65, 63, 40), "tokens_first")
    whole = attend(q, k, v, backend="reference")
    monkeypatch.setattr(backends, "LOGIT_ELEMENTS", 2 * 63 * 9)
    runs = attend(q, k, v, backend="reference")
    assert (runs.out_BHSD - whole.out_BHSD).abs().max() <= EXACT_FLOAT64
    assert (runs.lse_BHS - whole.lse_BHS).abs().max() <= EXACT_FLOAT64


def test_reference_never_holds_all_logits(
    monkeypatch: pytest.MonkeyPatch, allocations: Callable[[], Any]
) -> None:
    q, k, v = inputs(Shape(1, 1, 600, 700, 16), "heads_first")
    with allocations() as watched:
        attend(q, k, v, backend="reference")
    assert max(size for _, size in watched.seen) == 600 * 700
    monkeypatch.setattr(backends, "LOGIT_ELEMENTS", 1 << 14)
    with allocations() as watched:
        attend(q, k, v, backend="reference")
    assert max(size for _, size in watched.seen) <= 1 << 14
