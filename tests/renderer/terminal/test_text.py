"""What strangers wrote reaches no terminal as it is: texts, and every way to be shown."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.export import make_store, picture
from frieze.renderer.batches.item_states import ItemEvent
from frieze.renderer.cli import submit
from frieze.renderer.errors import StoreError
from frieze.renderer.events import Event
from frieze.renderer.monitoring.report import report
from frieze.renderer.monitoring.status import status
from frieze.renderer.terminal import batch_progress, error_lines, progress
from frieze.renderer.terminal import text as terminal
from support.stores import rewritten

HOSTILE = {
    "title": "\x1b]0;owned\x07",
    "cursor": "sun\x1b[2K\x1b[1Amoon",
    "return": "sun\rmoon",
    "bell": "\a\b\v\f",
    "eight bits": "\x9b31msun\x9d0;owned\x9c",
    "delete": "sun\x7f",
    "turned": "sun \u202egpj.exe \u2066\u2069",
    "half": "\udcff\ud800",
    "marks": "[red]sun[/red] [link=file:///etc]moon[/link] :bomb:",
}
PLAIN = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]*")


@pytest.fixture(params=HOSTILE.values(), ids=HOSTILE.keys())
def text(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def is_plain(shown: str) -> bool:
    return PLAIN.fullmatch(shown) is not None


def finished(text: str) -> None:
    """Every event of a render on lines, and of a batch."""
    lines, listed = progress.Lines(every=0), batch_progress.LineRoster(every=0)
    for kind in ("note", "stage", "export", "recovered", "plan", "resized", "workers"):
        lines(Event(kind, message=text, stage=1, num_stages=1, num_steps=2))
        listed(Event(kind, message=text))
        listed.item(ItemEvent(text, "running", Event(kind, message=text)))
    listed.item(ItemEvent(text, "failed", error=text))
    lines.handle(logging.LogRecord("frieze", logging.WARNING, "", 0, "%s", (text,), None))


def refused(text: str) -> None:
    error_lines._tell(StoreError(f"{text} is damaged"), json=False)
    error_lines._tell(ValueError(text), json=True)


def told(text: str) -> None:
    terminal.result(text, Path(f"a/{text}"))
    terminal.remark(text)
    terminal.copied(f"{text}\r\n{text}")
    submit._say(text)


@pytest.mark.parametrize("show", [finished, refused, told], ids=lambda show: show.__name__)
def test_no_line_moves_a_cursor_or_turns_the_writing(
    show: Callable[[str], None], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show(text)
    shown = "".join(capsys.readouterr())
    assert shown
    assert is_plain(shown)
    assert "moon" not in text or "moon" in shown
    print(text.replace("\udcff", "").replace("\ud800", ""))
    control = capsys.readouterr().out
    assert not is_plain(control) or text in (HOSTILE["marks"], HOSTILE["half"]), "control"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_live_displays_show_marks_and_controls_as_they_are_written(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", Terminal())
    shows: list[Any] = [progress.choose(json=False, quiet=False)]
    shows.append(batch_progress.choose(json=False, quiet=False))
    for shown in shows:
        with shown:
            shown(Event("note", message=text))
            shown(Event("stage", message=text, stage=1, num_stages=1, num_steps=2))
            if isinstance(shown, batch_progress.BatchProgress):
                shown.item(ItemEvent(text, "running", Event("recovered", message=text)))
                shown.item(ItemEvent(text, "failed", error=text))
    written = sys.stderr.getvalue()  # type: ignore[attr-defined]
    ours = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]|\r", "", written)  # how a display is drawn anew
    assert is_plain(ours)
    for mark in ("[red]", "[/link]", ":bomb:"):
        assert written.count(mark) >= 3 * (mark in text)
    if text == HOSTILE["cursor"]:
        assert r"\x1b[2K\x1b[1Amoon" in written


def test_what_a_store_says_is_shown_as_text(tmp_path: Path, text: str) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32), finish=False)
    prompt = f"{text}\n{text}"
    rewritten(store.path, lambda about: about["run"]["picture"].update(prompt=prompt))
    logged = {"event": "failure", "time": 1.0, "message": f"{text}\nframes: 9"}
    ended = {**logged, "event": "ended"}
    with (store.path / "frieze" / "log.jsonl").open("w") as log:
        log.writelines(json.dumps(line) + "\n" for line in (logged, ended))
    shown = str(status(store.path))
    assert is_plain(shown)
    assert not any(line.startswith("frames: 9") for line in shown.splitlines())
    page = report(store.path, tmp_path / "a.html").read_text()
    assert is_plain(page)


def test_joiners_of_emoji_and_letters_are_no_controls() -> None:
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u0645\u06cc\u200c"
    assert str(StoreError(family)) == family
