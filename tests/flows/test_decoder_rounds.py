"""A kill while the decoder makes what it is to enlarge again: that round is redone, none before."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contracts.export import picture
from frieze.renderer import RenderSpec, render, resume
from frieze.renderer.planning.plan import plan
from frieze.renderer.worker.shard import Shard
from support.decoders import saved
from support.drawing import pixels
from support.forkserver import Program
from tolerances import AMPLE

# Kills itself when rows of an array are to be saved that are not its first.
PROGRAM = """
import os, signal, sys
from frieze.renderer import RenderSpec, render
from frieze.renderer.store.store import Store
save = Store.save_latents
def save_or_die(store, array, slot, span, *rows, **more):
    if array == int(sys.argv[2]) and span.start:
        os.kill(os.getpid(), signal.SIGKILL)
    return save(store, array, slot, span, *rows, **more)
Store.save_latents = save_or_die
render(RenderSpec.model_validate_json(sys.argv[1]))
"""


@pytest.mark.slow
def test_only_the_round_that_was_killed_is_redone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(picture(40, 32)).save(tmp_path / "a.png")
    own = saved(tmp_path / "decoder", largest_scale=2.0)
    size = {"height": 320, "width": 256, "chunk": 64, "local": True}
    asked = {"upscale": str(tmp_path / "a.png"), "decoder": str(own), **size}
    specs = [
        RenderSpec.model_validate({**asked, "out": str(tmp_path / n)}) for n in ("a.zarr", "b.zarr")
    ]
    begun, drawn, begin, draw = list[int](), list[int](), Shard.begin, Shard.decode_stage

    def counted_begin(shard: Shard, stage: int, slot: int | None) -> object:
        begun.append(stage)
        return begin(shard, stage, slot)

    def counted_draw(shard: Shard) -> object:
        drawn.append(shard.stage_index)
        return draw(shard)

    monkeypatch.setattr(Shard, "begin", counted_begin)
    monkeypatch.setattr(Shard, "decode_stage", counted_draw)
    render(specs[0])
    assert (begun, drawn) == ([0, 1, 2], [0, 1])  # the control: all of three rounds
    array = plan(specs[1]).array("1-picture")
    drawing = Program(PROGRAM, specs[1].model_dump_json(), str(array))
    drawing.communicate(timeout=AMPLE)
    assert drawing.returncode == -signal.SIGKILL
    begun.clear()
    drawn.clear()
    resume(tmp_path / "b.zarr")
    assert (begun, drawn) == ([2], [1])
    assert np.array_equal(pixels(tmp_path / "a.zarr"), pixels(tmp_path / "b.zarr"))
