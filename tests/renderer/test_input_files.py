"""What is no file is refused at once by everything that reads a file by a user's name.

Nothing here may wait: a FIFO that is opened waits for a writer, and none comes.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from frieze.renderer.batches import batch_file
from frieze.renderer.checkpoints import configs, lora, weight_files
from frieze.renderer.cli import job_files
from frieze.renderer.errors import FriezeError
from frieze.renderer.input_files import fault
from frieze.renderer.inputs import media
from frieze.renderer.spec import presets


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def listener(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))
    return path


def dangling(path: Path) -> Path:
    path.symlink_to("nowhere")
    return path


def circle(path: Path) -> Path:
    path.symlink_to(path.name)
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def device(path: Path) -> Path:
    path.symlink_to("/dev/zero")
    return path


KINDS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda path: path, "no file"),
    "fifo": (fifo, "is a FIFO"),
    "socket": (listener, "is a socket"),
    "device": (device, "is a device"),
    "folder": (folder, "is a folder"),
    "dangling": (dangling, "is a link to nowhere"),
    "circle": (circle, "symbolic links"),
    "long": (lambda path: path.with_stem("ä" * 127), "name too long"),
    "nul": (lambda path: path.with_stem("a\0b"), "null byte"),
}
# What reads a file of that suffix.
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "media.read": (".png", media.read),
    "media.peek": (".png", media.peek),
    "preset": (".yaml", lambda path: presets.preset(str(path))),
    "batch of YAML": (".yaml", lambda path: list(batch_file.read(path))),
    "batch of lines": (".jsonl", lambda path: list(batch_file.read(path))),
    "LoRA": (".safetensors", lora.shapes),
    "weights": (".safetensors", weight_files.check_weights),
    "config": (".json", configs.read_json),
    "job": (".png", lambda path: job_files.local_files([("--init", path.name)])),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make, told = KINDS[kind]
    for index, (reader, (suffix, read)) in enumerate(READERS.items()):
        path = make(tmp_path / f"{index}{suffix}")
        if (reader, kind) == ("job", "folder"):
            continue  # a model's folder goes with a job
        with pytest.raises(FriezeError) as caught:
            read(path)
        message = str(caught.value)
        assert told in message or "is missing" in message or "is not here" in message, reader
        assert "\n" not in message


def test_a_file_has_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "a file: with a name"
    path.write_bytes(b"")
    assert fault(path) is None
    (tmp_path / "link").symlink_to(path)
    assert fault(tmp_path / "link") is None
