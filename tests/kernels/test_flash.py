"""The Triton kernel alone: row entropy in the same pass, and that it builds for GPUs not here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from frieze.kernels import flash, reference
from tolerances import CONTROL, EXACT_FLOAT32, HALF

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def qkv(device: str, dtype: torch.dtype, queries: int, keys: int, dim: int) -> list[Tensor]:
    sizes = (queries, keys, keys)
    return [torch.randn(1, n, 2, dim).transpose(1, 2).to(device, dtype) for n in sizes]


@pytest.fixture
def run(interpreted: Callable[..., Any], nan_memory: None) -> Callable[..., Any]:
    def on(*tensors: Tensor, **options: Any) -> Any:
        if tensors[0].device.type == "cpu":
            return interpreted(flash.attend, *tensors, **options)
        return flash.attend(*tensors, **options)

    return on


@pytest.mark.parametrize(("queries", "keys", "dim"), [(1, 1, 16), (63, 65, 72), (130, 200, 128)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("device", DEVICES)
def test_entropy_of_the_same_pass_matches_dense_softmax(
    run: Callable[..., Any], device: str, dtype: torch.dtype, queries: int, keys: int, dim: int
) -> None:
    q, k, v = qkv(device, dtype, queries, keys, dim)
    out, lse, entropy = run(q, k, v, scale=0.25, entropy=True)
    truth = reference.entropy(q.double(), k.double(), scale=0.25)
    assert (entropy - truth).abs().max() <= EXACT_FLOAT32
    plain_out, plain_lse, nothing = run(q, k, v, scale=0.25)
    assert nothing is None
    assert torch.equal(out, plain_out)
    assert torch.equal(lse, plain_lse)


@pytest.mark.parametrize("device", DEVICES)
def test_entropy_survives_a_large_common_logit(run: Callable[..., Any], device: str) -> None:
    """A constant dim adds 2500 to every logit, exactly, and nothing to the entropy."""
    q, k, v = qkv(device, torch.float32, 40, 150, 16)
    q, k = ((x * 4).round() / 4 for x in (q, k))
    q[..., 0] = k[..., 0] = 100.0
    _, lse, entropy = run(q, k, v, scale=0.25, entropy=True)
    assert lse.min() > 2400
    truth = reference.entropy(q.double(), k.double(), scale=0.25)
    assert (entropy - truth).abs().max() <= EXACT_FLOAT32 * 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("device", DEVICES)
def test_decayed_logits_match_the_reference(
    run: Callable[..., Any], device: str, dtype: torch.dtype
) -> None:
    q, k, v = qkv(device, dtype, 130, 200, 24)
    factor_F = torch.tensor([1.0, 0.9, 0.6, 0.9], device=device)
    frame_q_S, frame_k_K = (torch.arange(n, device=device) % 5 - 1 for n in (130, 200))
    decay = (factor_F, frame_q_S, frame_k_K)
    out, lse, entropy = run(q, k, v, scale=1.0, entropy=True, decay=decay)
    logits = reference.logits(q.double(), k.double(), 1.0)
    weights = reference.decayed_logits(logits, *decay).softmax(-1)
    truth, truth_lse = reference.weigh(reference.decayed_logits(logits, *decay), v.double())
    tolerance = EXACT_FLOAT32 if dtype == torch.float32 else HALF
    assert (out - truth).abs().max() <= tolerance * v.abs().max()
    assert (lse - truth_lse).abs().max() <= EXACT_FLOAT32 * truth_lse.abs().max()
    assert (entropy + torch.xlogy(weights, weights).sum(-1)).abs().max() <= EXACT_FLOAT32 * 5
    assert (run(q, k, v, scale=1.0)[1] - truth_lse).abs().max() > CONTROL


@pytest.mark.parametrize(
    ("capability", "dtype", "head_dim", "value_dim", "entropy", "decays"),
    [
        (80, "bf16", 128, 128, True, False),
        (90, "bf16", 128, 128, False, True),
        (90, "fp16", 72, 24, True, True),
        (80, "fp32", 16, 16, False, False),
    ],
)
def test_the_kernel_builds_for_gpus_that_are_not_here(
    capability: int, dtype: str, head_dim: int, value_dim: int, entropy: bool, decays: bool
) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    q = torch.empty(1, 1, 1, head_dim, dtype=dtypes[dtype])
    constants = flash._constants(q, value_dim) | {"WITH_ENTROPY": entropy, "WITH_DECAY": decays}
    constants["PRODUCT"] = flash.PRODUCTS[q.dtype]
    options = {name: constants.pop(name) for name in ("num_warps", "num_stages")}
    # Triton turns arguments that equal 1 into constants, and None too.
    constants |= dict.fromkeys(["stride_qd", "stride_ks", "stride_vd", "stride_od", "num_heads"], 1)
    if not entropy:
        constants["entropy"] = None
    decaying = ["factor", "frame_q", "frame_k"]
    if not decays:
        constants |= dict.fromkeys(decaying)
    pointers = dict.fromkeys(["q", "k", "v", "out"], f"*{dtype}")
    pointers |= dict.fromkeys(["lse", "entropy"], "*fp32") | {"scale_log2": "fp32"}
    pointers |= dict(zip(decaying, ["*fp32", "*i32", "*i32"], strict=True))
    signature = {
        name: "constexpr" if name in constants else pointers.get(name, "i32")
        for name in flash._attend_kernel.arg_names
    }
    source = ASTSource(flash._attend_kernel, signature, constants)
    built = compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    shared_memory = {80: 163, 90: 227}[capability] * 1024
    assert built.metadata.shared <= shared_memory
    assert len(built.asm["cubin"]) > 0
