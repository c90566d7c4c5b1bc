"""Small renders of the demo model for tests, and how two pictures differ."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from frieze.renderer import Event, RenderCancelledError, RenderResult, RenderSpec, render
from tolerances import AMPLE

PROMPT = "a red sun over blue mountains at dusk"
# The command line of a `small_spec`, but for its folder.
DRAW = ("render", PROMPT, "--size", "256x256", "--num-inference-steps", "4", "--seed", "7")


def small_spec(out: Path | str, **fields: Any) -> RenderSpec:
    """Four steps of the demo model at 256 x 256 on threads of this process, unless told other."""
    defaults: dict[str, Any] = {
        "prompt": PROMPT,
        "height": 256,
        "width": 256,
        "num_inference_steps": 4,
        "seed": 7,
        "local": True,
        "wait": AMPLE,
        "out": str(out),
    }
    return RenderSpec(**(defaults | fields))


def draw(out: Path, **fields: Any) -> RenderResult:
    """Render a `small_spec`."""
    return render(small_spec(out, **fields))


def stop_after(spec: RenderSpec, step: int, exports: tuple[Path, ...] = ()) -> None:
    """Render, and stop after so many steps."""
    cancel = threading.Event()

    def listen(event: Event) -> None:
        if event.kind == "step" and event.step == step:
            cancel.set()

    with pytest.raises(RenderCancelledError):
        render(spec, exports=exports, on_event=listen, cancel=cancel)


def pixels(store: Path) -> np.ndarray:
    """The full-size picture in a store, [H, W, 3]."""
    array = zarr.open_array(str(store / "0"), mode="r")
    return np.moveaxis(np.asarray(array[:]), 0, -1)


def grey_levels(a: np.ndarray, b: np.ndarray) -> int:
    """The largest difference of two 8-bit pictures, in grey levels."""
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max())


# A cascade small enough for tests: 256 high, then 512 with interpolated positions, and narrow.
# The first stage is enlarged as pixels; `LATENTS` is the same, enlarged as latents.
CASCADE: dict[str, Any] = {
    "height": 512,
    "width": 128,
    "method": "pi",
    "workers": 2,
    "stages": [{"scale": 0.5, "steps": 3}, {"scale": 1.0, "start": 0.6, "steps": 3}],
}
LATENTS = CASCADE | {
    "stages": [
        {"scale": 0.5, "steps": 3},
        {"scale": 1.0, "start": 0.6, "steps": 3, "enlarge": "latents"},
    ]
}
