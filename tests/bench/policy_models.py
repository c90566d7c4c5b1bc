"""Checkpoints of random weights as wide as published models are, for timings alone.

What a method adds to a step grows with its tokens and its channels, and the step itself with the
square of the channels: on the narrow demo model the same work is a larger part.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxTransformer2DModel, WanTransformer3DModel

from checkpoints import build
from frieze.renderer.family import describe


def wide(folder: Path) -> Path:
    """FLUX.1's width, heads and axes in one double and one single block, trained at 128 pixels."""
    shutil.copytree(describe("demo").folder, folder)
    hints = json.loads((folder / "frieze.json").read_text(encoding="utf-8"))
    (folder / "frieze.json").write_text(json.dumps(hints | {"training_size": 128}))
    config = json.loads((folder / "transformer" / "config.json").read_text(encoding="utf-8"))
    ours = {name: value for name, value in config.items() if not name.startswith("_")}
    ours |= {"num_attention_heads": 24, "attention_head_dim": 128, "axes_dims_rope": (16, 56, 56)}
    return _saved(FluxTransformer2DModel, ours | {"num_layers": 1, "num_single_layers": 1}, folder)


def clip(folder: Path) -> Path:
    """Wan 2.1's layout in two blocks of 8 heads of 128 channels."""
    build("wan", folder)
    config = json.loads((folder / "transformer" / "config.json").read_text(encoding="utf-8"))
    ours = {name: value for name, value in config.items() if not name.startswith("_")}
    ours |= {"num_attention_heads": 8, "attention_head_dim": 128, "ffn_dim": 4096}
    return _saved(WanTransformer3DModel, ours, folder)


def _saved(kind: Any, config: dict[str, Any], folder: Path) -> Path:
    """The folder, its transformer replaced."""
    shutil.rmtree(folder / "transformer")
    torch.manual_seed(0)
    kind(**config).save_pretrained(folder / "transformer")
    return folder
