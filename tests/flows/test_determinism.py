"""Drawn in two goes between other work a render is the same bits; what is not is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from frieze.cluster.strategies import bands
from frieze.renderer import Event
from frieze.renderer.store import numerics
from frieze.renderer.store.store import Store
from frieze.renderer.worker import shard as shards
from support.command_line import frieze, refused
from support.drawing import draw
from support.renders import KINDS, SIZE, Renders, difference, other_work, side_work


@pytest.fixture(scope="module")
def renders(tmp_path_factory: pytest.TempPathFactory) -> Renders:
    return Renders(tmp_path_factory.mktemp("renders"))


@pytest.fixture(scope="module")
def guided(renders: Renders) -> Path:
    """A traced render with a guide: two steps of a small stage, two of the whole one."""
    return renders.whole("imax")


@pytest.mark.parametrize(
    "kind", ["cascade-2", *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS)]
)
def test_a_render_in_two_goes_is_the_same_bits_whatever_is_done_meanwhile(
    renders: Renders, kind: str
) -> None:
    with side_work():
        again = renders.in_two(kind, 2, other_work)
    found, differs = difference(renders.whole(kind), again)
    assert (found.first, differs) == (None, False), str(found)
    assert found.num_compared > 15


def nudged(x: Tensor) -> Tensor:
    """One element of a tensor, moved by one unit in the last place."""
    moved = x.clone()
    moved.view(-1)[5] = torch.nextafter(moved.view(-1)[5], torch.tensor(9.0))
    return moved


def nudged_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network's estimates are one bit off."""
    predict = bands.predict
    monkeypatch.setattr(bands, "predict", lambda *args, **k: nudged(predict(*args, **k)))


def nudged_guide(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of the guide comes back one bit off."""
    load = Store.load_latents

    def loaded(store: Store, index: int, *args: Any) -> np.ndarray:
        found = load(store, index, *args)
        is_guide = store.layout.latents[index].name == "1-guide"
        return nudged(torch.from_numpy(found)).numpy() if is_guide else found

    monkeypatch.setattr(Store, "load_latents", loaded)


def nudged_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latents change between two steps, as those would that somebody else writes to."""
    step = shards.Shard.step

    def stepped(shard: shards.Shard, index: int, slot: int | None = None) -> Any:
        if (shard.stage_index, index) == (1, 1):
            shard.x_BCTHW = nudged(shard.x_BCTHW)
        return step(shard, index, slot)

    monkeypatch.setattr(shards.Shard, "step", stepped)


@pytest.mark.parametrize(
    ("plant", "stage", "step", "name"),
    [
        (nudged_estimate, 2, 2, "estimate 1"),
        (nudged_guide, 2, 1, "kept 1-guide 0"),
        (nudged_latents, 2, 2, "latents before"),
    ],
)
def test_control_one_bit_of_one_tensor_is_found_and_named(
    renders: Renders,
    guided: Path,
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[pytest.MonkeyPatch], None],
    stage: int,
    step: int,
    name: str,
) -> None:
    again = renders.in_two("imax", 3, lambda: plant(monkeypatch))
    found, _ = difference(guided, again)
    assert found.first is not None
    assert [(s.stage, s.step, s.name) for s in found.first[1:]] == [(stage, step, name)]


def test_the_command_says_what_differs_and_its_exit_code_whether(
    renders: Renders, guided: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = frieze("digests", str(guided))
    assert (same.exit_code, same.stdout.startswith("the same bits, in ")) == (0, True)
    nudged_latents(monkeypatch)
    other = str(renders.whole("imax"))
    told = frieze("digests", str(guided), other)
    assert told.exit_code == 1
    assert told.stdout.startswith("first differ at step 2 of stage 2, latents before, rows 0 to 16")
    assert told.stdout.count("\n") == 1
    told = frieze("digests", str(guided), other, "--json")
    assert json.loads(told.stdout)["first"][1]["name"] == "latents before"
    # Alone, the second one has what it took as it never was.
    assert frieze("digests", other).exit_code == 1


def test_stores_without_digests_are_refused_in_one_line(tmp_path: Path, guided: Path) -> None:
    draw(tmp_path / "a.zarr", **SIZE | {"num_inference_steps": 1})
    assert '"digests"' not in (tmp_path / "a.zarr/frieze/log.jsonl").read_text()
    refused(frieze("digests", str(guided), str(tmp_path / "a.zarr")), "--trace-digests")
    refused(frieze("digests", str(tmp_path / "none.zarr")), "no store")


def test_a_resume_elsewhere_is_told_in_one_line(renders: Renders) -> None:
    heard: list[Event] = []

    def elsewhere() -> None:
        (path,) = renders.folder.glob("plain-*.zarr")
        journal = Store.open(path).journal
        ranks = [{**rank, "torch": "1.0.0"} for rank in numerics.recorded(journal)]
        journal.append({"event": numerics.EVENT, "ranks": ranks})

    path = renders.in_two("plain", 1, elsewhere, heard.append)
    notes = [event.message for event in heard if event.kind == "note"]
    assert [note for note in notes if "torch 1.0.0" in note] == [
        f"drawn before with torch 1.0.0, not {torch.__version__}: the bytes agree to rounding only"
    ]
    assert numerics.recorded(Store.open(path).journal)[0]["torch"] == torch.__version__
