"""A decoder of any size on Ray's workers, of which one is lost in the middle of blocks."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from frieze.renderer import Event, render
from frieze.renderer.store.store import Store
from support.decoders import saved
from support.drawing import draw, grey_levels, pixels, small_spec
from tolerances import AMPLE, CONTROL, GREY_LEVELS

pytestmark = pytest.mark.usefixtures("kept_encoders")
WISH: dict[str, Any] = {"width": 256, "height": 1536, "chunk": 64, "num_inference_steps": 1}


@pytest.mark.slow
@pytest.mark.ray
def test_workers_on_ray_come_and_go_in_the_decode(tmp_path: Path, ray_cluster: int) -> None:
    folder, path, events = saved(tmp_path / "decoder"), tmp_path / "a.zarr", list[Event]()

    def listen(event: Event) -> None:
        events.append(event)
        crews = [each.facts["workers"] for each in events if "workers" in each.facts]
        if event.kind == "block" and sum(each.kind == "block" for each in events) == 1:
            os.kill(crews[-1][-1]["pid"], signal.SIGKILL)

    wish = {"decoder": str(folder), **WISH}
    spec = small_spec(path, **wish, workers="1..2", local=False, timeout=AMPLE)
    render(spec, on_event=listen)
    crews = [len(each.facts["workers"]) for each in events if "workers" in each.facts]
    assert max(crews) == 2
    assert [each.kind for each in events].count("recovered") == 1
    journal = Store.open(str(path)).journal.read()
    ids = [name for event in journal for name in event.get("ids", [])]
    assert len(ids) == len(set(ids)) == 4 * 24  # no block was drawn twice
    draw(tmp_path / "b.zarr", **wish)
    assert grey_levels(pixels(path), pixels(tmp_path / "b.zarr")) <= GREY_LEVELS
    draw(tmp_path / "c.zarr", **wish, seed=8)  # the control
    assert grey_levels(pixels(path), pixels(tmp_path / "c.zarr")) > GREY_LEVELS + CONTROL
