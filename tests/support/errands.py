"""What the tests run apart from any fleet."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from torch import Tensor


def encode(num_tokens: int) -> tuple[int, dict[str, Tensor]]:
    """The process, and what stands for an encoded prompt."""
    generator = torch.Generator().manual_seed(num_tokens)
    embeds = torch.randn(1, num_tokens, 8, generator=generator)
    return os.getpid(), {"embeds": embeds, "pooled": embeds.mean(1).to(torch.bfloat16)}


def threads() -> str | None:
    return os.environ.get("OMP_NUM_THREADS")


def refuse(message: str) -> None:
    raise KeyError(message)


def die() -> None:
    os._exit(3)


def sleep(folder: str, seconds: float) -> None:
    """Says which process sleeps; the file is whole when it is there."""
    name = Path(folder) / "pid"
    name.with_suffix(".new").write_text(str(os.getpid()))
    name.with_suffix(".new").rename(name)
    time.sleep(seconds)
