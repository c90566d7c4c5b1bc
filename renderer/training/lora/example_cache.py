"""Latents of examples and what captions are encoded to, made once, kept in files.

Shape suffixes: B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

LATENTS, TEXTS = "latents", "texts"


class ExampleCache:
    """A file for each example, by its key, and for each text, by its digest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has_latents(self, key: str) -> bool:
        """Whether an example's file is there: whole, for it gets its name when it is."""
        return (self.folder / LATENTS / f"{key}.safetensors").exists()

    def has_text(self, text: str) -> bool:
        """The same of a text."""
        return self._of_text(text).exists()

    def keep_latents(self, key: str, x_BCTHW: Tensor) -> None:
        """Write an example's latents, in float32."""
        _write(self.folder / LATENTS / f"{key}.safetensors", {LATENTS: x_BCTHW.float()})

    def keep_text(self, text: str, tensors: Mapping[str, Tensor]) -> None:
        """Write what a text is encoded to."""
        _write(self._of_text(text), tensors)

    def latents(self, key: str, device: torch.device) -> Tensor:
        """[1, C, T, H, W], float32."""
        return load_file(self.folder / LATENTS / f"{key}.safetensors")[LATENTS].to(device)

    def text(self, text: str, device: torch.device) -> dict[str, Tensor]:
        """What a text is encoded to."""
        return {name: value.to(device) for name, value in load_file(self._of_text(text)).items()}

    def _of_text(self, text: str) -> Path:
        digest = hashlib.sha256(text.encode()).hexdigest()[:24]
        return self.folder / TEXTS / f"{digest}.safetensors"


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
    save_file(
        {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}, part
    )
    os.replace(part, path)
