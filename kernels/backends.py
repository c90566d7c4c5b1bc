"""The table of attention backends: what each needs, what it refuses, how it is called.

Shape suffixes: B batch, H heads, S query tokens, K key tokens, D head dim, E value head dim.
Every backend gets checked, non-empty tensors of one dtype on one device and an explicit scale,
and returns (out [B, H, S, E] in the inputs' dtype, natural log-sum-exp [B, H, S]).
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from . import reference
from .meta_tensors import device_type

Result = tuple[Tensor, Tensor]

HALF = (torch.float16, torch.bfloat16)
# Logits of the reference backend held at once: queries are taken in runs of at most this many.
LOGIT_ELEMENTS = 1 << 24
CUDA_HEAD_DIM_MULTIPLE = 8


@dataclass(frozen=True)
class Backend:
    """One way to compute attention over some of the keys, with its log-sum-exp."""

    name: str
    # What this machine lacks for it, or None.
    missing: Callable[[], str | None]
    # Why it cannot do this call, or None; named once per reason, so without token counts.
    refusal: Callable[[Tensor, Tensor, Tensor], str | None]
    run: Callable[[Tensor, Tensor, Tensor, float], Result]


def preferred(q_BHSD: Tensor) -> tuple[str, ...]:
    """Names for this device and dtype, fastest first; the last one can do anything."""
    kind = device_type(q_BHSD)
    if kind == "cpu":
        return ("cpu_flash", "reference")
    if kind != "cuda" or q_BHSD.dtype == torch.float64:
        return ("reference",)
    if q_BHSD.dtype not in HALF:
        return ("efficient", "triton", "reference")
    if q_BHSD.is_meta:  # a device that is not here: the one that copies most
        return ("cudnn", "flash", "efficient", "reference")
    hopper_or_later = torch.cuda.get_device_capability(q_BHSD.device) >= (9, 0)
    names = ("flash", "xformers", "efficient", "triton", "reference")
    return ("cudnn", *names) if hopper_or_later else names


def _refuse(*reasons: str | None) -> str | None:
    return next((reason for reason in reasons if reason), None)


def _needs_device(x: Tensor, kind: str) -> str | None:
    found = device_type(x)
    return None if found == kind else f"needs {kind} tensors, not {found}"


def _needs_dtype(x: Tensor, dtypes: tuple[torch.dtype, ...]) -> str | None:
    if x.dtype in dtypes:
        return None
    return f"cannot do {_short(x.dtype)}, only {', '.join(map(_short, dtypes))}"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _needs_head_dim(q_BHSD: Tensor, v_BHKE: Tensor, limit: int) -> str | None:
    largest = max(q_BHSD.shape[-1], v_BHKE.shape[-1])
    return None if largest <= limit else f"cannot do head dim {largest}, at most {limit}"


def _needs_one_head_dim(q_BHSD: Tensor, v_BHKE: Tensor) -> str | None:
    if q_BHSD.shape[-1] == v_BHKE.shape[-1]:
        return None
    return f"cannot do head dim {q_BHSD.shape[-1]} with value head dim {v_BHKE.shape[-1]}"


def _dense(x: Tensor) -> Tensor:
    """x with its last dim contiguous; torch's own ops silently misread any other layout."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _run_reference(q_BHSD: Tensor, k_BHKD: Tensor, v_BHKE: Tensor, scale: float) -> Result:
    """The specification over runs of queries, so that no S x K matrix is ever held."""
    per_query = q_BHSD.shape[0] * q_BHSD.shape[1] * k_BHKD.shape[2]
    length = max(1, LOGIT_ELEMENTS // per_query)
    if q_BHSD.is_meta:  # no run of queries holds more than the first
        from .flop_count import standing_for_attention

        with standing_for_attention(max(1.0, q_BHSD.shape[2] / length)):
            out, lse = reference.attend(q_BHSD[:, :, :length], k_BHKD, v_BHKE, scale=scale)
        return out.new_empty((*q_BHSD.shape[:3], out.shape[3])), lse.new_empty(q_BHSD.shape[:3])
    parts = [
        reference.attend(q_part, k_BHKD, v_BHKE, scale=scale)
        for q_part in q_BHSD.split(length, dim=2)
    ]
    if len(parts) == 1:
        return parts[0]
    outs, lses = zip(*parts, strict=True)
    return torch.cat(outs, dim=2), torch.cat(lses, dim=2)


def _cpu_flash_missing() -> str | None:
    if hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu"):
        return None
    return f"torch {torch.__version__} has no flash attention for the CPU"


def _cpu_flash_refusal(q_BHSD: Tensor, k_BHKD: Tensor, v_BHKE: Tensor) -> str | None:
    return _refuse(
        _needs_device(q_BHSD, "cpu"),
        _needs_dtype(q_BHSD, (torch.float64, torch.float32, *HALF)),
        _needs_one_head_dim(q_BHSD, v_BHKE),
    )


def _run_cpu_flash(q_BHSD: Tensor, k_BHKD: Tensor, v_BHKE: Tensor, scale: float) -> Result:
    out_BHSE, lse_BHS = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        _dense(q_BHSD), _dense(k_BHKD), _dense(v_BHKE), 0.0, False, scale=scale
    )
    return out_BHSE, lse_BHS


def _needs_cuda(major: int = 0, minor: int = 0) -> str | None:
    if not torch.cuda.is_available():
        return "no CUDA device"
    have = torch.cuda.get_device_capability()
    if have >= (major, minor):
        return None
    return f"needs compute capability {major}.{minor}, the device has {have[0]}.{have[1]}"


def _aligned(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Head dims padded with zeros to the multiple that CUDA ops need; the logits do not change."""
    excess = [-x.shape[-1] % CUDA_HEAD_DIM_MULTIPLE for x in tensors]
    return tuple(
        F.pad(x, (0, extra)) if extra else _dense(x)
        for x, extra in zip(tensors, excess, strict=True)
    )


def _cudnn_missing() -> str | None:
    if reason := _needs_cuda(8, 0):
        return reason
    return None if torch.backends.cudnn.is_available() else "this torch has no cuDNN"


def _cudnn_refusal(q_BHSD: Tensor, k_BHKD: Tensor, v_BHKE: Tensor) -> str | None:
    single = q_BHSD.shape[2] == 1 or k_BHKD.shape[2] == 1
    return _refuse(
        _needs_device(q_BHSD, "cuda"),
        _needs_dtype(q_BHSD, HALF),
        _needs_head_dim(q_BHSD, v_BHKE, 128),
        "cannot do a single query or key" if single else None,
    )


def _run_cudnn(q_BHSD: Tensor, k_BHKD: Tensor, v_BHKE: Tensor, scale: float) -> Result:
    """cuDNN's kernel, given contiguous copies: the bare op has misread strided views."""
    q, k, v = (x.contiguous() for x in _aligned(q_BHSD, k_BHKD, v_BHKE))
    out, lse, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(
        q, k, v, None, True, 0.0, False, False, scale=scale
    )
    return out[..., : v_BHKE.shape[-1]], lse.reshape(q.shape[:3])


def _flash_refusal(q_BHSD: Tensor, k_BHKD: Tensor, v_BHKE: Tensor) -> str | None:
    return _refuse(
        _needs_device(q_BHSD, "cuda"),
        _needs_dtype(q_BHSD, HALF),
        _needs_one_head_dim(q_BHSD, v_BHKE),
        _needs_head_dim(q_BHSD, v_BHKE, 256),
    )


def _run_flash(q_BHSD: Tensor, k_BHKD: Tensor, v_BHKE: Tensor, scale: float) -> Result:
    out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
        *_aligned(q_BHSD, k_BHKD, v_BHKE), 0.0, False, False, scale=scale
    )
    return out[..., : v_BHKE.shape[-1]], lse[..., : q_BHSD.shape[2]]


def _efficient_refusal(q_BHSD: Tensor, k_BHKD: Tensor, v_BHKE: Tensor) -> str | None:
    return _refuse(_needs_device(q_BHSD, "cuda"), _needs_dtype(q_BHSD, (torch.float32, *HALF)))


def _run_efficient(q_BHSD: Tensor, k_BHKD: Tensor, v_BHKE: Tensor, scale: float) -> Result:
    """The memory-efficient kernel; it pads the log-sum-exp to a multiple of 32 queries."""
    out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
        *_aligned(q_BHSD, k_BHKD, v_BHKE), None, True, 0.0, False, scale=scale
    )
    return out[..., : v_BHKE.shape[-1]], lse[..., : q_BHSD.shape[2]]


def _not_installed(package: str) -> str | None:
    return None if importlib.util.find_spec(package) else f"{package} is not installed"


def _xformers_missing() -> str | None:
    if reason := _not_installed("xformers") or _needs_cuda(8, 0):
        return reason
    import xformers

    if xformers._has_cpp_library:
        return None
    return f"xformers {xformers.__version__} is built for another torch than {torch.__version__}"


def _xformers_refusal(q_BHSD: Tensor, k_BHKD: Tensor, v_BHKE: Tensor) -> str | None:
    return _refuse(
        _needs_device(q_BHSD, "cuda"),
        _needs_dtype(q_BHSD, HALF),  # its float32 kernel gives no log-sum-exp of parts
        _needs_one_head_dim(q_BHSD, v_BHKE),
        _needs_head_dim(q_BHSD, v_BHKE, 256),
    )


def _run_xformers(q_BHSD: Tensor, k_BHKD: Tensor, v_BHKE: Tensor, scale: float) -> Result:
    from xformers.ops import fmha

    q, k, v = (x.transpose(1, 2) for x in _aligned(q_BHSD, k_BHKD, v_BHKE))
    out_BSHE, lse_BHS = fmha.memory_efficient_attention_partial(q, k, v, scale=scale)
    out_BHSE = out_BSHE.transpose(1, 2)[..., : v_BHKE.shape[-1]]
    return out_BHSE.to(v_BHKE.dtype), lse_BHS[..., : q_BHSD.shape[2]]


def _interpreting() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def _triton_missing() -> str | None:
    return _not_installed("triton") or (None if _interpreting() else _needs_cuda(7, 5))


def _triton_refusal(q_BHSD: Tensor, k_BHKD: Tensor, v_BHKE: Tensor) -> str | None:
    return _refuse(
        None if _interpreting() else _needs_device(q_BHSD, "cuda"),
        _needs_dtype(q_BHSD, (torch.float32, *HALF)),
        _needs_head_dim(q_BHSD, v_BHKE, 128),
    )


def _run_triton(q_BHSD: Tensor, k_BHKD: Tensor, v_BHKE: Tensor, scale: float) -> Result:
    from . import flash

    return flash.attend(q_BHSD, k_BHKD, v_BHKE, scale=scale)[:2]


def _never(*_: Tensor) -> None:
    return None


_BACKENDS = (
    Backend("cpu_flash", _cpu_flash_missing, _cpu_flash_refusal, _run_cpu_flash),
    Backend("cudnn", _cudnn_missing, _cudnn_refusal, _run_cudnn),
    Backend("flash", functools.partial(_needs_cuda, 8, 0), _flash_refusal, _run_flash),
    Backend("efficient", _needs_cuda, _efficient_refusal, _run_efficient),
    Backend("xformers", _xformers_missing, _xformers_refusal, _run_xformers),
    Backend("triton", _triton_missing, _triton_refusal, _run_triton),
    Backend("reference", _never, _never, _run_reference),
)
TABLE: dict[str, Backend] = {backend.name: backend for backend in _BACKENDS}
