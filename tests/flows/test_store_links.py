"""A store from elsewhere with a link in it: nothing is written or read where the link leads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from frieze.renderer.store import directory
from support.command_line import frieze, refused
from support.drawing import PROMPT, small_spec, stop_after

Lead = Callable[[Path, Path], None]

NAMES = [
    *("frieze", "frieze/run.json", "frieze/journal.jsonl", "frieze/lock", "frieze/log.jsonl"),
    *("frieze/log.1.jsonl", "frieze/latents", "frieze/latents/0", "frieze/latents/0/zarr.json"),
    *("frieze/latents/0/c", "zarr.json", "0", "0/zarr.json", "0/c", "0/c/0/0/0", "1", "new"),
]
DRAW = ("render", PROMPT, "--size", "64x64", "--num-inference-steps", "2", "--seed", "7", "--local")
COMMANDS = [
    *(("resume", "{}", "--local"), ("verify", "{}"), ("status", "{}"), ("report", "{}", "a.html")),
    *(("export", "{}", "a.png"), ("digests", "{}")),
]
ANEW = [(*DRAW, "--out", "{}", "--overwrite"), (*DRAW, "--out", "{}", "--continue")]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store stopped after its first step."""
    path = tmp_path_factory.mktemp("begun") / "a.zarr"
    stop_after(small_spec(path, height=64, width=64, num_inference_steps=2), step=1)
    return path


def led_away(path: Path, home: Path) -> None:
    """Put what is at a path into another folder, and a link to it in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        shutil.move(path, home / path.name)
    else:
        (home / path.name).write_text("years")
    path.symlink_to(home / path.name)


def dangling(path: Path, home: Path) -> None:
    """Put a link in the place of what is at a path, to where nothing is as yet."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(home / path.name)


def stopped_up(path: Path, home: Path) -> None:
    """Put a FIFO there, which holds up whoever opens it."""
    dangling(path, home)
    path.unlink()
    os.mkfifo(path)


def seen(folder: Path) -> dict[str, bytes]:
    """What every file in a folder holds, the names of its folders too."""
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


@pytest.mark.parametrize("lead", [led_away, dangling, stopped_up], ids=lambda lead: lead.__name__)
def test_links_are_refused_in_one_line(
    lead: Lead, begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(NAMES):
        here, home = tmp_path / f"here{number}", tmp_path / f"home{number}"
        here.mkdir()
        home.mkdir()
        store = shutil.copytree(begun, here / "a.zarr")
        lead(store / name, home)
        before, told = seen(home), "a FIFO" if lead is stopped_up else f"a link to {home}"
        monkeypatch.chdir(here)
        # Every name and every command with each lead; every name with every command where it leads.
        is_full = lead is led_away or name == "frieze/lock"
        tried = COMMANDS if is_full else [COMMANDS[number % len(COMMANDS)]]
        for words in (*tried, *(ANEW if name == "frieze/lock" else ())):
            shown = frieze(*(word.format(store) for word in words))
            refused(shown, f"{store / name} is {told}", "holds files and folders alone")
        assert os.listdir(here) == ["a.zarr"], name
        assert seen(home) == before, name


def test_what_is_led_away_later_is_not_written_either(
    begun: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(directory, "check_tree", lambda _: None)  # all was well when it looked
    for number, name in enumerate(("journal.jsonl", "lock", "run.json", "log.jsonl")):
        store, home = tmp_path / f"{number}.zarr", tmp_path / f"home{number}"
        home.mkdir()
        shutil.copytree(begun, store)
        led_away(store / "frieze" / name, home)
        before = seen(home)
        caplog.clear()
        shown = frieze("resume", str(store), "--local", "--quiet")
        assert "is no regular file" in shown.stderr + caplog.text, name
        assert shown.exit_code == (0 if name == "log.jsonl" else 2), shown.output
        assert seen(home) == before, name
    control, home = tmp_path / "control.zarr", tmp_path / "home"
    home.mkdir()
    shutil.copytree(begun, control)
    led_away(control / "frieze", home)
    before = seen(home)
    assert frieze("resume", str(control), "--local", "--quiet").exit_code == 0
    assert seen(home) != before, "control: this is what a link does to those who follow it"
