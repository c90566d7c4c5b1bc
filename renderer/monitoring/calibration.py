"""The rates of the device that is here, measured on what networks ask: a few seconds.

Each figure is the least of several runs, so that other work on the machine changes it little; the
load is told with it. What is measured is what is predicted: operations are counted, and what others
are known to take is taken off.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frieze.cluster.bands import band_mode
from frieze.cluster.comm import Comm, Like, run_threads, solo
from frieze.cluster.layout import Band
from frieze.kernels.attention import attend
from frieze.kernels.flop_count import flop_count
from frieze.kernels.work import Work

from ..costs.device_kinds import Rates
from ..store.layout import StoreLayout
from ..store.store import Store

Case = Callable[[], object]
RUNS = 7
MESSAGES, BLOCKS = 100, 16
SMALL, TOKENS, WIDTH, HEAD_DIM, SIDE, CHANNELS = 16, 2048, 512, 64, 128, 64


@torch.no_grad()
def rates(device: str, dtype: str, seconds: float = 1.0) -> Rates:
    """What a device does in a precision; each case runs about so many seconds."""
    kind, precision = torch.device(device), getattr(torch, dtype)

    def tensor(*shape: int) -> Tensor:
        return torch.randn(shape, device=kind).to(precision)

    tiny, call = tensor(1, SMALL, 32), {}
    for name, is_banded in (("call", False), ("banded_call", True)):
        took, work = _measured(_banded(tiny, is_banded), device, seconds / 4)
        call[name] = took / work.calls
    known = {"calls": call["call"]}
    for part, case in _cases(tensor).items():
        took, work = _measured(case, device, seconds)
        rest = took - sum(getattr(work, name) * each for name, each in known.items())
        known[part] = max(rest, took / 10) / getattr(work, part)
    return Rates(
        dtype=dtype,
        matmul=1 / known["matmul"],
        conv=1 / known["conv"],
        attention=1 / known["attention"],
        copied=1 / known["touched"],
        **call,
        link=_link(1 / known["touched"]),
        message=_message(device),
        block=_block(),
        when=time.strftime("%Y-%m-%d"),
        load=round(os.getloadavg()[0], 2),
        torch=str(torch.__version__),
    )


def _cases(tensor: Callable[..., Tensor]) -> Mapping[str, Case]:
    """By the part of `Work` that each finds, when those before it are known."""
    x, image = tensor(1, TOKENS, WIDTH), tensor(1, CHANNELS, SIDE, SIDE)
    up, down = tensor(4 * WIDTH, WIDTH), tensor(WIDTH, 4 * WIDTH)
    kernel = tensor(CHANNELS, CHANNELS, 3, 3)
    heads = tensor(1, WIDTH // HEAD_DIM, TOKENS, HEAD_DIM)

    def copies() -> object:
        y = F.layer_norm(x, (WIDTH,)) * x + x
        return F.gelu(torch.cat([y, x], -1), approximate="tanh")

    return {
        "touched": copies,
        "matmul": lambda: F.linear(F.linear(x, up), down),
        "conv": lambda: F.conv2d(image, kernel, padding=1),
        "attention": lambda: attend(heads, heads, heads),
    }


def _banded(x: Tensor, is_banded: bool) -> Case:
    """Operations so small that all they take is being called, through the band mode or not.

    They are asked as networks ask them: by modules in modules, whose own Python counts.
    """
    network = nn.Sequential(*(_Layer(x.shape[-1]) for _ in range(8))).to(x).eval()

    def case() -> None:
        with band_mode(solo(), [Band(0, SMALL)], always=is_banded):
            network(x)

    return case


class _Layer(nn.Module):
    """What a layer of a network does around its products."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.act = nn.LayerNorm(width), nn.GELU()
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.up(self.norm(x)).unflatten(-1, (2, -1)).transpose(1, 2)
        return x + self.down(self.act(heads.transpose(1, 2).flatten(2)))


def _measured(case: Case, device: str, seconds: float) -> tuple[float, Work]:
    """The least seconds of a call, and its work."""
    with flop_count() as count:
        case()
    times: list[float] = []
    ends = time.perf_counter() + seconds
    while len(times) < RUNS or time.perf_counter() < ends:
        _wait(device)
        began = time.perf_counter()
        case()
        _wait(device)
        times.append(time.perf_counter() - began)
    return min(times), count.work


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _link(copied: float) -> float:
    """Bytes a second to another rank: between the first two CUDA devices, if there are two.

    Ranks of one host hand memory over: a copy.
    """
    if not torch.cuda.is_available() or torch.cuda.device_count() < 2:
        return copied
    x = torch.empty(2**26, dtype=torch.uint8, device="cuda:0")
    took, _ = _measured(lambda: x.to("cuda:1"), "cuda", 0.5)
    return x.numel() / took


def _message(device: str) -> float:
    """Seconds until a small message of one rank is another's, whose turn it is then."""

    def rank(comm: Comm) -> float:
        x, other = torch.zeros(SMALL, device=device), 1 - comm.rank
        times = []
        for _ in range(RUNS):
            began = time.perf_counter()
            for _ in range(MESSAGES):
                comm.exchange({other: x}, {other: Like.of(x)})
            times.append(time.perf_counter() - began)
        return min(times) / (2 * MESSAGES)

    return float(min(run_threads(rank, 2, turns=True)))


def _block() -> float:
    """Seconds that a block of a store takes on this disk, beside its pixels."""
    layout = StoreLayout(SMALL * BLOCKS, SMALL, (SMALL, SMALL))
    rows_HWC = np.zeros((SMALL, SMALL, 3), np.uint8)
    times = []
    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(Path(folder) / "a.zarr", layout, fingerprint="", run={})
        for top in range(0, layout.height, SMALL):
            began = time.perf_counter()
            ids = store.write_rows(top, rows_HWC)
            store.journal.append({"event": "block", "ids": ids})
            times.append(time.perf_counter() - began)
    return float(np.median(times))
