"""A clip whose second stage asks pooled context, killed there: the same bytes after it."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import pytest

import checkpoints
from frieze.renderer.checkpoints.checkpoint import describe
from support.command_line import frieze, process

TRAINED = 8  # tokens a side, and frames that make three of latents
STEPS = 6  # of the second stage: enough to be killed within


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """A clip of nine frames, twice as high and wide as tiny Wan says here that it was trained."""
    folder = checkpoints.build("wan", tmp_path_factory.mktemp("wan") / "wan")
    unit = describe(str(folder)).latent.unit
    hints = {"training_size": TRAINED * unit, "training_frames": 9}
    (folder / "frieze.json").write_text(json.dumps(hints))
    side = 2 * TRAINED * unit
    stages = ("scale=0.5,steps=2", f"start=0.6,steps={STEPS},attend=pooled")
    return (
        *("render", "waves", "--model", str(folder), "--size", f"{side}x{side}", "--frames", "9"),
        *("--method", "pi", "--stage", stages[0], "--stage", stages[1], "--seed", "7"),
        *("--workers", "2", "--local", "--quiet"),
    )


def steps(store: Path) -> list[int]:
    """The stages of a store's saved steps, from 0 on."""
    journal = store / "frieze" / "journal.jsonl"
    lines = journal.read_text().splitlines() if journal.exists() else []
    events = [json.loads(line) for line in lines if line.endswith("}")]
    return [event["stage"] for event in events if event["event"] == "state"]


def kill_in_second_stage(words: tuple[str, ...], store: Path) -> None:
    with process(*words) as drawn:
        while 1 not in steps(store):
            assert drawn.poll() is None, drawn.communicate()[1]
            time.sleep(0.01)
        drawn.kill()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_a_pooled_clip_killed_in_its_second_stage_is_finished_to_the_same_bytes(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    whole, killed, full = (tmp_path / f"{name}.mp4" for name in ("whole", "killed", "full"))
    assert frieze(*words, "--out", str(whole)).exit_code == 0
    kill_in_second_stage((*words, "--out", str(killed)), killed.with_suffix(".zarr"))
    found = steps(killed.with_suffix(".zarr"))
    assert 0 < found.count(1) < STEPS
    assert not killed.exists()
    done = frieze("resume", str(killed.with_suffix(".zarr")), "--workers", "2", "--local")
    assert done.exit_code == 0, done.stderr
    assert digest(killed) == digest(whole)
    other = tuple(word.replace("attend=pooled", "attend=full") for word in words)
    assert frieze(*other, "--out", str(full)).exit_code == 0
    assert digest(full) != digest(whole), "control"
