"""Exports that a render was asked for: begun with its first pixels, and whole or not there."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from frieze.renderer import Event, ExportError, RenderCancelledError, render, resume
from frieze.renderer.outputs import exporting
from frieze.renderer.store.follower import Follower
from frieze.renderer.store.store import Store
from support.drawing import draw, small_spec
from tolerances import AMPLE

FOREVER = 3600.0  # seconds; longer than a test may take
TINY = {"height": 128, "width": 64, "num_inference_steps": 1, "chunk": 32}


class Watched:
    """The real export, which also notes how many blocks there were when it was begun."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failures: int = 0) -> None:
        self.blocks: list[int] = []
        self.begun = threading.Event()
        self._failures = failures
        self._real = exporting.export
        monkeypatch.setattr(exporting, "export", self._export)

    def _export(self, store: Path, out: Path, **options: Any) -> Any:
        self.blocks.append(len(Store.open(store).done()))
        self.begun.set()
        if len(self.blocks) <= self._failures:
            raise ExportError(f"{out}: a trial failure")
        return self._real(store, out, **options)


def test_exports_are_written_while_blocks_are_painted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)

    def hold(event: Event) -> None:
        if event.kind == "decode":  # no block is drawn before this returns
            assert watched.begun.wait(AMPLE)

    made = render(
        small_spec(tmp_path / "a.zarr", **TINY), exports=[tmp_path / "a.png"], on_event=hold
    )
    assert watched.blocks == [0]
    after = exporting.export(made.path, tmp_path / "after.png", overwrite=False)
    assert after.read_bytes() == (tmp_path / "a.png").read_bytes()


def test_a_stopped_render_leaves_no_half_export_and_waits_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = draw(tmp_path / "whole.zarr", **TINY)
    expected = exporting.export(whole.path, tmp_path / "whole.png", overwrite=False)
    watched, cancel = Watched(monkeypatch), threading.Event()
    real = Follower.__init__
    monkeypatch.setattr(
        Follower, "__init__", lambda *a, **options: real(*a, **options | {"patience": FOREVER})
    )

    def stop(event: Event) -> None:
        if event.kind == "decode":
            assert watched.begun.wait(AMPLE)
            cancel.set()

    with pytest.raises(RenderCancelledError):
        render(
            small_spec(tmp_path / "a.zarr", **TINY),
            exports=[tmp_path / "a.png"],
            on_event=stop,
            cancel=cancel,
        )
    assert sorted(os.listdir(tmp_path)) == ["a.zarr", "whole.png", "whole.zarr"]
    assert not Store.open(tmp_path / "a.zarr").is_complete
    resume(tmp_path / "a.zarr")
    assert (tmp_path / "a.png").read_bytes() == expected.read_bytes()


def test_an_export_that_fails_beside_the_painting_is_made_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch, failures=1)
    made = render(small_spec(tmp_path / "a.zarr", **TINY), exports=[tmp_path / "a.png"])
    assert (tmp_path / "a.png").exists()
    assert len(watched.blocks) == 2
    assert watched.blocks[1] == made.num_blocks


def test_an_export_that_never_works_leaves_the_store_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Watched(monkeypatch, failures=9)
    with pytest.raises(ExportError, match="a trial failure"):
        render(small_spec(tmp_path / "a.zarr", **TINY), exports=[tmp_path / "a.png"])
    assert Store.open(tmp_path / "a.zarr").is_complete
    assert not (tmp_path / "a.png").exists()
