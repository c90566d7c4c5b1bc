"""Every kind of render, drawn whole and drawn in two goes between other work: the same bits."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import checkpoints
from frieze.kernels.attention import attend
from frieze.renderer import Event, RenderCancelledError, render, resume
from frieze.renderer.monitoring.comparison import Comparison, compare
from support.drawing import pixels, small_spec

SIZE = {"height": 128, "width": 128, "chunk": 32, "num_inference_steps": 3}
ONE = [{"scale": 1.0, "steps": 3}]
TWO = [{"scale": 0.5, "steps": 2}, {"scale": 1.0, "steps": 2}]
GUIDED = SIZE | {"stages": TWO}
CASCADE = SIZE | {"method": "pi", "stages": [TWO[0], {"scale": 1.0, "start": 0.6, "steps": 2}]}
LATENTS = [TWO[0], {"scale": 1.0, "steps": 2, "enlarge": "latents"}]
HALVES = {"negative_prompt": "grey", "true_cfg_scale": 2.0}
# What each kind is drawn with; "model" is a tiny checkpoint's name, else the demo model's.
KINDS: dict[str, dict[str, Any]] = {
    "plain": SIZE | {"method": "none"},
    "cascade": CASCADE,
    "cascade-2": CASCADE | {"workers": 2},
    "ring-4": SIZE | {"method": "none", "workers": 4},
    "ulysses-4": SIZE | {"method": "none", "workers": 4, "ulysses": 2},
    "halves": SIZE | HALVES | {"method": "none"},
    "halves-4": SIZE | HALVES | {"method": "none", "workers": 4, "guidance_ranks": 2},
    "imax": GUIDED | {"method": "imax"},
    "imax-2": GUIDED | {"method": "imax", "workers": 2},
    "resolution": GUIDED | {"method": "ultraimage", "method_options": {"mode": "resolution"}},
    "view": SIZE
    | {
        "method": "ultraimage",
        "method_options": {"mode": "view", "form": "feathered", "share": 0.6},
        "stages": LATENTS,
    },
    "hiflow": SIZE
    | {"method": "hiflow", "stages": [TWO[0], {"scale": 1.0, "start": 0.7, "steps": 3}]},
    "eaac": {"height": 320, "width": 256, "method": "eaac", "num_inference_steps": 2},
    "sega": {"height": 320, "width": 256, "method": "sega", "num_inference_steps": 2},
    "bfloat16": SIZE | {"method": "none", "dtype": "bfloat16"},
    "unet": {"model": "sd15", "height": 160, "width": 64, "guidance_scale": 5.0},
    "wan": {"model": "wan", "height": 112, "width": 64, "num_frames": 5, "guidance_scale": 4.0},
}


class Renders:
    """Draws kinds into a folder, each under a name of its own; tiny checkpoints are built once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0

    def fields(self, kind: str) -> dict[str, Any]:
        fields = {"num_inference_steps": 3, "trace_digests": True, **KINDS[kind]}
        if name := fields.get("model"):
            model = self.folder / f"model-{name}"
            if not model.is_dir():
                checkpoints.build(name, model)
            fields |= {"model": str(model)}
        return fields

    def _path(self, kind: str) -> Path:
        self._count += 1
        return self.folder / f"{kind}-{self._count}.zarr"

    def whole(self, kind: str) -> Path:
        """A render from start to end."""
        path = self._path(kind)
        render(small_spec(path, **self.fields(kind)))
        return path

    def in_two(
        self,
        kind: str,
        number: int,
        between: Callable[[], None] = lambda: None,
        on_event: Callable[[Event], None] | None = None,
    ) -> Path:
        """One that is stopped after its number-th step, and goes on after what is done between.

        `on_event` hears of the second part.
        """
        path, cancel, seen = self._path(kind), threading.Event(), []

        def listen(event: Event) -> None:
            seen.append(event.kind)
            if seen.count("step") == number:
                cancel.set()

        with pytest.raises(RenderCancelledError):
            render(small_spec(path, **self.fields(kind)), on_event=listen, cancel=cancel)
        between()
        resume(path, on_event=on_event)
        return path

    def num_steps(self, kind: str) -> int:
        """How many steps a kind takes."""
        fields = self.fields(kind)
        stages = fields.get("stages") or [{"steps": fields["num_inference_steps"]}]
        return sum(stage["steps"] for stage in stages)


def difference(one: Path, other: Path) -> tuple[Comparison, bool]:
    """Where two traced renders first differ, and whether their pixels do."""
    array = [pixels(path) if _is_picture(path) else _clip(path) for path in (one, other)]
    return compare(str(one), str(other)), not np.array_equal(*array)


def _is_picture(path: Path) -> bool:
    return _clip(path).ndim == 3


def _clip(path: Path) -> np.ndarray:
    import zarr

    return np.asarray(zarr.open_array(str(path / "0"), mode="r")[:])


def other_work() -> None:
    """What a process may do between two renders: attention in narrow types, memory in disorder."""
    generator = torch.Generator().manual_seed(1)
    for dtype in (torch.float64, torch.bfloat16, torch.float16, torch.float32):
        q, k, v = torch.randn(3, 1, 2, 300, 24, generator=generator).to(dtype)
        attend(q, k, v)
        torch.nn.functional.scaled_dot_product_attention(q, k, v)
    junk = [torch.full((997 * n,), torch.nan) for n in range(1, 60)]
    del junk[::2]


@contextmanager
def side_work() -> Iterator[None]:
    """Inside, another thread allocates, frees, multiplies and collects garbage."""
    done = threading.Event()

    def work() -> None:
        torch.set_num_threads(1)
        while not done.is_set():
            other_work()
            x = torch.randn(64, 64)
            (x @ x).exp().sum()
            gc.collect(1)  # a whole collection would hold up every thread
            done.wait(0.2)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
