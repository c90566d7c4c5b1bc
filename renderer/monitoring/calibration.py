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
from frieze.cluster.comm import Comm, phantom, run_threads, solo
from frieze.cluster.layout import Band
from frieze.kernels.attention import attend
from frieze.kernels.flop_count import count_sent, flop_count
from frieze.kernels.work import Work

from ..costs.device_kinds import Rates
from ..journal.inventory import SavedState
from ..store.layout import LatentArray, StoreLayout
from ..store.store import Store

Case = Callable[[], object]
RUNS = 7
BLOCKS, LAYERS = 16, 64  # so many layers that what each needs is not all in a core's cache
SMALL, TOKENS, WIDTH, HEAD_DIM, SIDE, CHANNELS = 16, 2048, 512, 64, 128, 64


@torch.no_grad()
def rates(device: str, dtype: str, seconds: float = 1.0) -> Rates:
    """What a device does in a precision; each case runs about so many seconds."""
    kind, precision = torch.device(device), getattr(torch, dtype)

    def tensor(*shape: int) -> Tensor:
        return torch.randn(shape, device=kind).to(precision)

    call = {}
    for name, is_banded in (("", False), ("banded_", True)):
        took, work = _measured(_called(tensor(1, SMALL, 32), is_banded), device, seconds / 4)
        call[f"{name}call"] = each = took / work.calls
        took, work = _measured(_called(tensor(1, 8, SMALL, 8), is_banded), device, seconds / 4)
        call[f"{name}conv_call"] = max(0.0, took - work.calls * each) / work.convs
    known = {"calls": call["call"], "convs": call["conv_call"]}
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
        message=_message(device, call["banded_call"], call["banded_conv_call"]),
        **_saving(),
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


def _called(x: Tensor, is_banded: bool) -> Case:
    """Operations so small that all they take is being called, through the band mode or not.

    They are asked as networks ask them: by modules in modules, whose own Python counts.
    """
    network = _network(x)

    def case() -> None:
        with band_mode(solo(), [Band(0, SMALL)], always=is_banded):
            network(x)

    return case


def _network(x: Tensor) -> nn.Module:
    """Of layers for tokens [B, S, D], or for maps [B, C, H, W]."""
    layer = _Layer if x.dim() == 3 else _ConvLayer
    width = x.shape[-1] if x.dim() == 3 else x.shape[1]
    return nn.Sequential(*(layer(width) for _ in range(LAYERS))).to(x).eval()


class _Layer(nn.Module):
    """What a layer of a network does around its products."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.act = nn.LayerNorm(width), nn.GELU()
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.up(self.norm(x)).unflatten(-1, (2, -1)).transpose(1, 2)
        return x + self.down(self.act(heads.transpose(1, 2).flatten(2)))


class _ConvLayer(nn.Module):
    """The same of a layer that convolves, as U-Nets' and decoders' do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.act = nn.GroupNorm(2, width), nn.SiLU()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.act(self.norm(x)))


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


@torch.no_grad()
def _message(device: str, call: float, conv_call: float) -> float:
    """Seconds that a message takes a rank of two that take turns, with all that waits for it.

    Of a network of convolutions that is cut in two, what its operations are known to take is
    taken off.
    """
    x, bands = (
        torch.zeros(1, 8, 2 * SMALL, 8, device=device),
        [Band(0, SMALL), Band(SMALL, 2 * SMALL)],
    )
    network = _network(x)

    def draw(comm: Comm) -> None:
        with band_mode(comm, bands):
            network(x)

    def rank(comm: Comm) -> float:
        times = []
        for _ in range(RUNS):
            began = time.perf_counter()
            draw(comm)
            times.append(time.perf_counter() - began)
        return min(times)

    with flop_count() as count:
        draw(phantom(0, 2, device=device, sending=count_sent))
    work, took = count.work, max(run_threads(rank, 2, turns=True)) / 2
    return float(max(0.0, took - work.calls * call - work.convs * conv_call) / work.messages)


def _saving() -> dict[str, float]:
    """Seconds that a block of a store, and a state, take on this disk beside their contents."""
    latents = (LatentArray("0", (2, SMALL, 1, SMALL, SMALL), SMALL),)
    layout = StoreLayout(SMALL * BLOCKS, SMALL, (SMALL, SMALL), latents=latents)
    rows_HWC, state_CTHW = np.zeros((SMALL, SMALL, 3), np.uint8), np.zeros((SMALL, 1, SMALL, SMALL))
    blocks, states = [], []
    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(Path(folder) / "a.zarr", layout, fingerprint="", run={})
        for step, top in enumerate(range(0, layout.height, SMALL)):
            began = time.perf_counter()
            ids = store.write_rows(top, rows_HWC)
            store.journal.append({"event": "block", "ids": ids})
            blocks.append(time.perf_counter() - began)
            began = time.perf_counter()
            slot, rows = step % 2, slice(0, SMALL)
            sums = store.save_latents(0, slot, rows, state_CTHW.astype(np.float32))
            store.confirm_state(SavedState(0, step, slot), [sums])
            states.append(time.perf_counter() - began)
    return {"block": float(np.median(blocks)), "state": float(np.median(states))}
