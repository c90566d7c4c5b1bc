"""Plain values from YAML and JSON: what is read, and what is refused in one line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from frieze.renderer.spec.values import ValuesError, file_text, from_json, from_yaml


def bomb(join: str) -> str:
    """A text whose aliases unfold to more than 10^8 values."""
    rows = ["a0: &a0 {x: 1}"]
    rows += [f"a{i}: &a{i} {join % ', '.join([f'*a{i - 1}'] * 9)}" for i in range(1, 10)]
    return "\n".join(rows)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a: 2024-01-01\nb: 2024-99-99", {"a": "2024-01-01", "b": "2024-99-99"}),
        ("a: &b {x: 1}\nc: {<<: *b, y: 2}", {"a": {"x": 1}, "c": {"x": 1, "y": 2}}),
        ("a: &b {x: 1}\np: {q: &c {<<: *b, x: 2}}\nd: {<<: *c}", None),
        ("", None),
    ],
)
def test_yaml_that_is_plain_is_read(text: str, values: Any) -> None:
    read = from_yaml(text)
    assert values is None or read == values


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\na: 2", "line 2: the key 'a' is given twice"),
        ("[" * 3000, "50 deep"),
        ("- " * 3000, "50 deep"),
        ("a: &x [*x]", "50 deep"),
        ("&a {<<: *a}", "too deep"),
        (bomb("[%s]"), "unfolds to more than"),
        (bomb("{<<: [%s]}"), "unfolds|merged keys"),
        ("a: " + "9" * 5000, "4300 digits"),
        ("a: 0x" + "f" * 5000, "about 6021 digits"),
        ("a: .nan", "no number"),
        ("1: 2", "the key 1 is no text"),
        ("? [1, 2]\n: 3", "line 1: found unhashable key"),
        ("a: !!set {x, y}", "a set"),
        ("a: !!binary aGk=", "bytes"),
        ("a: !!bool x", "does not fit its tag"),
        ("a: !!timestamp x", "does not fit its tag"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("\ta: 1", r"line 1: found character '\\t'"),
        ("a: \0", "#x0000"),
        ('a: "\\0"', "no text in UTF-8"),
        ('"\\ud800": 1', "no text in UTF-8"),
        ("--- a\n--- b", "another document"),
    ],
)
def test_yaml_that_is_none_or_means_nothing_is_refused(text: str, reason: str) -> None:
    refused(from_yaml, text, reason)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 30_000, "too deep"),
        ("NaN", "no number"),
        ("1e999", "no number"),
        ("1" * 5000, "4300 digits"),
        ('{"a": 1, "a": 2}', "given twice"),
        ('"\\ud800"', "no text in UTF-8"),
        ("[1,2", "Expecting"),
    ],
)
def test_json_that_is_none_or_means_nothing_is_refused(text: str, reason: str) -> None:
    refused(from_json, text, reason)


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert from_json(file_text(tmp_path / "a")) == {"a": 1}


def test_what_is_no_text_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "latin").write_bytes(b"a: \xe4")
    for name, reason in {
        "fifo": "a FIFO",
        "latin": "byte 3 is no UTF-8",
        "nothing": "there is no file",
        "": "a folder",
        "x" * 300: "too long",
    }.items():
        refused(file_text, tmp_path / name, reason)


def refused(read: Callable[[Any], Any], what: Any, reason: str) -> None:
    with pytest.raises(ValuesError, match=reason):
        read(what)
