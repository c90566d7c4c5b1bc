"""Outputs of published code for stated inputs, and the formulas that make these inputs.

`tests/data/scale_methods.json` holds what the authors' code of HiDiffusion and FreeScale gave in
float64; its `about` says which commits. The inputs are exact on any machine: splitmix64 (public
domain, Vigna) of (seed 2^32 + index) gives 53 bits.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

EXACT = 1e-9  # relative, float64
ROUNDED = 1e-6  # where the authors make a Gaussian in float32

_DATA = Path(__file__).parents[1] / "data" / "scale_methods.json"


def vectors(key: str) -> list[dict[str, Any]]:
    """The vectors of one kind."""
    found: list[dict[str, Any]] = json.loads(_DATA.read_text(encoding="utf-8"))[key]
    return found


def about(key: str) -> Any:
    """What is said of all vectors: how the networks are built that they are of."""
    return json.loads(_DATA.read_text(encoding="utf-8"))["about"][key]


def uniform(shape: tuple[int, ...], seed: int) -> Tensor:
    """Numbers in [0, 1), float64."""
    a, b, step = (
        np.uint64(x) for x in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0x9E3779B97F4A7C15)
    )
    with np.errstate(over="ignore"):
        z = np.arange(int(np.prod(shape)), dtype=np.uint64) + (np.uint64(seed) << np.uint64(32))
        z = z * step + step
        z = (z ^ (z >> np.uint64(30))) * a
        z = (z ^ (z >> np.uint64(27))) * b
        z = z ^ (z >> np.uint64(31))
    return torch.from_numpy((z >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)


def noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """Numbers of mean 0 and variance 1, float64."""
    return (2 * uniform(shape, seed) - 1) * 3**0.5


def parameter(name: str, shape: tuple[int, ...]) -> Tensor:
    """A weight or bias, made of its own name."""
    x = noise(shape, zlib.crc32(name.encode()) % 2**31)
    return 0.1 * x if len(shape) == 1 else x / (x[0].numel() ** 0.5)


def difference(x: Tensor, recorded: dict[str, Any]) -> float:
    """Largest difference from what was recorded of a tensor, relative to its largest entry."""
    flat = x.detach().double().reshape(-1)
    assert list(x.shape) == recorded["shape"]
    found = [flat.mean(), flat.std(unbiased=False), flat.abs().max(), *flat[recorded["at"]]]
    stated = [recorded["mean"], recorded["std"], recorded["absmax"], *recorded["values"]]
    worst = max(abs(float(a) - b) for a, b in zip(found, stated, strict=True))
    return worst / recorded["absmax"]
