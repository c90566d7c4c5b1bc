"""A server of the images API in this process, on a free port of loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frieze.renderer.server.allowed_fields import allowed
from frieze.renderer.server.jobs.job_run import Spread
from frieze.renderer.server.limits import Limits
from frieze.renderer.server.served_models import served_models
from frieze.renderer.server.server import Server, Settings, listen

PRESET = "model: demo\nheight: 64\nwidth: 64\nnum_inference_steps: 2\nmethod: none\n"


@dataclass
class Served:
    """A server at work; `draws` is set while it may draw."""

    server: Server
    base: str
    stop: threading.Event

    @property
    def api(self) -> str:
        return f"{self.base}/v1"


def settings(folder: Path, **more: Any) -> Settings:
    """Of a server of a tiny picture's preset, called tiny."""
    file = folder.parent / "tiny.yaml"
    file.write_text(PRESET)
    shared = {"local": True, "device": "cpu"}
    told: dict[str, Any] = {
        "folder": folder,
        "models": served_models([str(file), f"other={file}"]),
        "fields": allowed(["scheduler"]),
        "limits": Limits(pixels=128 * 128, steps=50, queue=20, body=2**20, wait=100),
        "spread": Spread(1, shared, False, 1),
        "address": None,
    }
    return Settings(**{**told, **more})


@contextmanager
def served(about: Settings, *, draws: bool = True) -> Iterator[Served]:
    """Within this, a server answers, and draws unless told otherwise."""
    server, stop = Server(about), threading.Event()
    listening = listen("127.0.0.1", 0)
    drawing = threading.Thread(target=server.draw, args=(stop,), name="drawing")
    with listening, server.serving(listening):
        if draws:
            drawing.start()
        try:
            yield Served(server, f"http://127.0.0.1:{listening.getsockname()[1]}", stop)
        finally:
            stop.set()
            if draws:
                drawing.join()
