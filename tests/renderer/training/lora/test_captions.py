"""Captions beside pictures, in rows of metadata, and with a trigger word."""

from __future__ import annotations

from pathlib import Path

import pytest

from frieze.renderer.training.lora.captions import captions, triggered


def test_captions_of_both_ways_in_folders_below(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    for name in ("a.png", "b.jpg", "more/c.png", "more/d.png", "e.png"):
        (tmp_path / name).touch()
    (tmp_path / "a.txt").write_text("\ufeffbeside a \n", encoding="utf-8")
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "a.png", "text": "a row"}\n\n{"file_name": "b.jpg", "prompt": "é"}\n'
        '{"file_name": "more/c.png", "caption": "c"}\n',
        encoding="utf-8",
    )
    (tmp_path / "more" / "metadata.csv").write_text('file_name,text\nd.png,"d, and so on"\n')
    names = sorted(str(path) for path in tmp_path.rglob("*") if path.is_file())
    found = {Path(name).name: text for name, text in captions(names).items()}
    assert found == {"a.png": "beside a", "b.jpg": "é", "c.png": "c", "d.png": "d, and so on"}


@pytest.mark.parametrize(
    ("text", "trigger", "told"),
    [
        ("a [trigger] cat", "sks", "a sks cat"),
        ("a cat", "sks", "sks, a cat"),
        ("", "sks", "sks"),
        ("a [trigger] cat", None, "a [trigger] cat"),
    ],
)
def test_a_trigger_word(text: str, trigger: str | None, told: str) -> None:
    assert triggered(text, trigger) == told
