"""Digests of what a rank takes and makes, so that two renders that differ tell where they began to.

Off by default. A digest is twelve hexadecimal digits of BLAKE2b over a tensor's type, shape and
bytes: one bit more or less is another digest. Beside it stands the root mean square, by which a
rounding is told from a mistake. Names carry no prompt.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from frieze.cluster.layout import Band

from ..models.family import Conditioning

DIGITS = 12
# A tensor's digest, the rows of its canvas that it holds, and its root mean square.
Entry = list[Any]


class TensorTrace:
    """What one rank took and made since it was last asked, by name, in that order."""

    def __init__(self, is_on: bool = False) -> None:
        self.is_on = is_on
        self._taken: dict[str, Entry] = {}

    def take(self, name: str, x: Tensor, rows: Band | None = None) -> None:
        """Note a tensor, over these rows of the canvas; of one name again it is numbered."""
        if not self.is_on:
            return
        number, key = 1, name
        while key in self._taken:
            number += 1
            key = f"{name} #{number}"
        span = None if rows is None else [rows.start, rows.stop]
        self._taken[key] = [digest(x), span, _size(x)]

    def take_conditioning(self, prompts: Conditioning | None, image: Mapping[str, Tensor]) -> None:
        """Note the tensors of an encoded prompt and its negative, and what a first frame adds."""
        halves = prompts.halves if prompts else ()
        parts = [*zip(("prompt", "negative prompt"), halves, strict=False), ("first frame", image)]
        for what, tensors in parts:
            for name, x in tensors.items():
                self.take(f"{name} of the {what}", x)

    def take_weights(self, model: object) -> None:
        """Note the weights of every network of a model."""
        networks = {k: v for k, v in vars(model).items() if isinstance(v, nn.Module)}
        for name, network in networks.items() if self.is_on else ():
            whole = hashlib.blake2b(digest_size=DIGITS // 2)
            for key, weight in sorted(network.state_dict().items()):
                if isinstance(weight, Tensor):
                    whole.update(f"{key}:{digest(weight)};".encode())
            self._taken[f"weights of {name}"] = [whole.hexdigest(), None, None]

    def taken(self) -> Mapping[str, Entry]:
        """{name: [digest, rows, root mean square]}, and forget it."""
        found, self._taken = self._taken, {}
        return found


def digest(x: Tensor) -> str:
    """A digest of a tensor's type, shape and bytes, wherever it lies and however it is laid out."""
    plain = x.detach().cpu().contiguous()
    found = hashlib.blake2b(f"{plain.dtype}{tuple(plain.shape)}".encode(), digest_size=DIGITS // 2)
    found.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _size(x: Tensor) -> float | None:
    """The root mean square of a tensor's elements; None where there is none to speak of."""
    if not (x.numel() and x.is_floating_point()):
        return None
    norm = float(torch.linalg.vector_norm(x.detach().float(), dtype=torch.float64))
    return norm / math.sqrt(x.numel()) if math.isfinite(norm) else None
