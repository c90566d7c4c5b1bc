"""Attention over some of the keys, by whichever backend of this machine is fastest and able.

Shape suffixes: B batch, H heads, S query tokens, K key tokens, D head dim, E value head dim.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .backends import TABLE, Backend, preferred
from .reference import finite, wide

_log = logging.getLogger("frieze.kernels")


@dataclass(frozen=True)
class AttentionPartial:
    """Softmax attention over some of the keys; partials over disjoint keys add up exactly.

    `out_BHSD` is the softmax-weighted mean of the values, in the inputs' dtype until it is merged
    and float32 (float64 for float64) from then on. `lse_BHS` is the natural logarithm of the sum
    of exponentials of the logits, never narrower than float32; -inf where there were no keys.
    """

    out_BHSD: Tensor
    lse_BHS: Tensor

    def __add__(self, other: AttentionPartial) -> AttentionPartial:
        """Attention over the union of the keys: out = sum_i exp(lse_i - lse) out_i.

        The weights are float32, so a bfloat16 `out` is widened by the product, not rounded again:
        sums kept in bfloat16 drift with the number of parts. Bitwise commutative; over no keys on
        either side the result is the neutral (0, -inf), not NaN.
        """
        lse_BHS = torch.logaddexp(self.lse_BHS, other.lse_BHS)
        shift_BHS = finite(lse_BHS)
        weight_BHS = (self.lse_BHS - shift_BHS).exp()
        other_weight_BHS = (other.lse_BHS - shift_BHS).exp()
        out_BHSD = weight_BHS[..., None] * self.out_BHSD
        out_BHSD = out_BHSD + other_weight_BHS[..., None] * other.out_BHSD
        return AttentionPartial(out_BHSD, lse_BHS)


@dataclass(frozen=True)
class BackendReport:
    """Whether a backend can work on this machine, and if not, why not."""

    name: str
    available: bool
    why: str


def attend(
    q_BHSD: Tensor,
    k_BHSD: Tensor,
    v_BHSD: Tensor,
    *,
    scale: float | None = None,
    backend: str | None = None,
) -> AttentionPartial:
    """Softmax attention of q over the keys k and values v, with its log-sum-exp.

    q is [B, H, S, D], k [B, H, K, D], v [B, H, K, E], any strides; K may differ from S and may be
    0, which gives (0, -inf). `scale` multiplies the logits and defaults to D ** -0.5. `backend`
    forces one by name. Raises ValueError for shapes that do not fit together, for an unknown
    backend and for one that cannot do this call, saying why.
    """
    _check(q_BHSD, k_BHSD, v_BHSD)
    if scale is None:
        scale = q_BHSD.shape[-1] ** -0.5
    if not (q_BHSD.numel() and k_BHSD.numel()):
        out_BHSE = v_BHSD.new_zeros((*q_BHSD.shape[:-1], v_BHSD.shape[-1]))
        lse_BHS = q_BHSD.new_full(q_BHSD.shape[:-1], -torch.inf, dtype=wide(q_BHSD.dtype))
        return AttentionPartial(out_BHSE, lse_BHS)
    if backend is None:
        return _automatic(q_BHSD, k_BHSD, v_BHSD, scale)
    run = _forced(backend, q_BHSD, k_BHSD, v_BHSD).run
    _thread.used.add(backend)
    return AttentionPartial(*run(q_BHSD, k_BHSD, v_BHSD, scale))


def entropy(
    q_BHSD: Tensor, k_BHSD: Tensor, partial: AttentionPartial, *, scale: float | None = None
) -> Tensor:
    """Shannon entropy (nats) of each query's softmax over the keys k, [B, H, S].

    H = lse - E[s], where E[s] takes one more call of `attend` and no kernel of its own. `partial`
    is the attention of q over the same keys; only its log-sum-exp is read.
    """
    mean_key = attend(q_BHSD, k_BHSD, k_BHSD, scale=scale)
    return partial.lse_BHS - mean_logit(q_BHSD, mean_key, scale=scale)


def mean_logit(q_BHSD: Tensor, mean_key: AttentionPartial, *, scale: float | None = None) -> Tensor:
    """E[s] = scale <q, attend(q, k, v := k)> of each query, [B, H, S].

    `mean_key` is that attention with the keys as values; over parts of the keys, their sum.
    """
    if scale is None:
        scale = q_BHSD.shape[-1] ** -0.5
    wide_q_BHSD = q_BHSD.to(mean_key.lse_BHS.dtype)
    return scale * (wide_q_BHSD * mean_key.out_BHSD).sum(-1)


def choose(q_BHSD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor) -> str:
    """The name of the backend that `attend` would use for these tensors."""
    return next(_able(q_BHSD, k_BHSD, v_BHSD)).name


def used() -> tuple[str, ...]:
    """Names of the backends by which this thread has attended so far."""
    return tuple(sorted(_thread.used))


def backends() -> tuple[BackendReport, ...]:
    """Every backend known, whether it can work on this machine, and what is missing if not."""
    reports = ((backend.name, backend.missing()) for backend in TABLE.values())
    return tuple(BackendReport(name, why is None, why or "") for name, why in reports)


def _check(q_BHSD: Tensor, k_BHKD: Tensor, v_BHKE: Tensor) -> None:
    """Torch's fused ops read out of bounds where these do not agree."""
    q, k, v = q_BHSD.shape, k_BHKD.shape, v_BHKE.shape
    fits = len(q) == len(k) == len(v) == 4 and q[:2] == k[:2] == v[:2]
    if not (fits and q[3] == k[3] and k[2] == v[2]):
        raise ValueError(
            f"attention over q {tuple(q)}, k {tuple(k)}, v {tuple(v)}: want [B, H, S, D], "
            "[B, H, K, D] and [B, H, K, E]"
        )
    if not q_BHSD.dtype == k_BHKD.dtype == v_BHKE.dtype:
        raise ValueError(
            f"attention over dtypes {q_BHSD.dtype}, {k_BHKD.dtype}, {v_BHKE.dtype}: "
            "cast them to one"
        )
    if not q_BHSD.device == k_BHKD.device == v_BHKE.device:
        raise ValueError(
            f"attention over devices {q_BHSD.device}, {k_BHKD.device}, {v_BHKE.device}: "
            "move them to one"
        )


def _forced(name: str, q_BHSD: Tensor, k_BHKD: Tensor, v_BHKE: Tensor) -> Backend:
    """The backend of that name, or ValueError saying why it cannot do this call."""
    if name not in TABLE:
        raise ValueError(f"no attention backend {name!r}; there are {', '.join(TABLE)}")
    backend = TABLE[name]
    missing = None if q_BHSD.is_meta else backend.missing()
    if reason := missing or backend.refusal(q_BHSD, k_BHKD, v_BHKE):
        raise ValueError(f"attention backend {name} {reason}; leave the choice open to use another")
    return backend


def _able(q_BHSD: Tensor, k_BHKD: Tensor, v_BHKE: Tensor) -> Iterator[Backend]:
    """Backends that say they can do this call, fastest first; the reference always comes last.

    It is alone where gradients are wanted: others' log-sum-exp has none.
    """
    learned = torch.is_grad_enabled() and any(x.requires_grad for x in (q_BHSD, k_BHKD, v_BHKE))
    for name in ("reference",) if learned else preferred(q_BHSD):
        backend = TABLE[name]
        if not q_BHSD.is_meta and _missing(name):
            continue
        if reason := backend.refusal(q_BHSD, k_BHKD, v_BHKE):
            if not q_BHSD.is_meta:
                _warn_once(name, reason)
            continue
        yield backend


def _automatic(q_BHSD: Tensor, k_BHKD: Tensor, v_BHKE: Tensor, scale: float) -> AttentionPartial:
    """The first backend that succeeds; one that breaks on this machine is passed over aloud."""
    for backend in _able(q_BHSD, k_BHKD, v_BHKE):
        try:
            partial = AttentionPartial(*backend.run(q_BHSD, k_BHKD, v_BHKE, scale))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            # On a processor torch has no error of its own for it. Another backend would need no
            # less, and would give other bits for want of memory.
            if backend.name == "reference" or _is_for_memory(error):
                raise
            _warn_once(backend.name, f"failed: {str(error).splitlines()[0]}")
        else:
            if not q_BHSD.is_meta:
                _thread.used.add(backend.name)
            return partial
    raise AssertionError("the reference backend can do every call")


def _is_for_memory(error: RuntimeError) -> bool:
    return any(said in str(error) for said in ("can't allocate memory", "not enough memory"))


class _Thread(threading.local):
    """The backends that a thread has used: those of a rank, which has a thread of its own."""

    def __init__(self) -> None:
        self.used: set[str] = set()


_thread = _Thread()


@functools.cache
def _missing(name: str) -> str | None:
    return TABLE[name].missing()


@functools.cache
def _warn_once(name: str, reason: str) -> None:
    _log.warning("attention backend %s %s; using another", name, reason)
