"""What is cut off a prompt reaches the caller, and never the log."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from frieze.renderer import Event, ModelError, render
from frieze.renderer.models.truncation import Cut, check_vocabulary, cuts
from support.drawing import PROMPT, small_spec


def test_a_render_tells_what_is_cut_and_keeps_it_out_of_the_log(tmp_path: Path) -> None:
    events: list[Event] = []
    long = f"{PROMPT}, " * 12 + "a walrus"
    render(
        small_spec(tmp_path / "a.zarr", prompt=long, num_inference_steps=1),
        on_event=events.append,
    )
    told = [event for event in events if event.kind == "note" and "cut" in event.facts]
    assert told
    assert all("walrus" in event.message or "..." in event.message for event in told)
    log = (tmp_path / "a.zarr" / "frieze" / "log.jsonl").read_text()
    assert '"letters"' in log
    assert "walrus" not in log
    assert "mountains" not in log


def test_only_what_is_the_prompts_is_told() -> None:
    framed = "system: draw. user: a red sun. assistant:"
    end = framed.index(" sun")
    assert cuts([("tokenizer", 9, framed, end)], "a red sun.", None) == (
        Cut("tokenizer", 9, "sun."),
    )
    assert cuts([("tokenizer", 9, framed, framed.index(" assistant"))], "a red sun.") == ()


def test_a_vocabulary_of_marks_is_refused(tmp_path: Path) -> None:
    def tokenizer(words: int) -> SimpleNamespace:
        known = {str(number): number for number in range(words + 2)}
        return SimpleNamespace(get_vocab=lambda: known, all_special_ids=[0, 1])

    check_vocabulary(tokenizer(100), tmp_path)
    with pytest.raises(ModelError, match="a vocabulary of 1 words: no prompt could be read"):
        check_vocabulary(tokenizer(1), tmp_path)
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(ModelError, match=r"merges\.txt is missing"):
        check_vocabulary(tokenizer(100), tmp_path)
