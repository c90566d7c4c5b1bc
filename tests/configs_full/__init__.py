"""Public checkpoints as their configs say them, in full size and without their weights.

Each JSON file has a checkpoint's small files by path, as published, and under `parameters` how
many weights its text encoders have. The weight files are sparse: a header and nothing on the disk.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def build(name: str, folder: Path) -> Path:
    """Write the checkpoint `name` into `folder`, which is returned."""
    files = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
    return write(files, files.pop("parameters"), folder)


def write(files: Mapping[str, Any], parameters: Mapping[str, int], folder: Path) -> Path:
    """The same from a checkpoint's small files by path."""
    for path, values in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(values), encoding="utf-8")
    drawing = {"transformer", "unet", "vae"} & {Path(path).parts[0] for path in files}
    for part in (*drawing, *parameters):
        (folder / part).mkdir(exist_ok=True)
        _weights(folder / part / "model.safetensors", parameters.get(part, 1))
    return folder


def _weights(file: Path, number: int) -> None:
    """A file of one bfloat16 tensor that is all hole."""
    tensor = {"dtype": "BF16", "shape": [number], "data_offsets": [0, 2 * number]}
    header = json.dumps({"weight": tensor}).encode()
    with file.open("wb") as opened:
        opened.write(struct.pack("<Q", len(header)) + header)
        opened.truncate(8 + len(header) + 2 * number)
