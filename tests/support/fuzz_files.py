"""YAML presets and batch files for `fuzzing`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from frieze.renderer.batches import batch_file, items
from frieze.renderer.planning.plan import _made
from frieze.renderer.spec import presets
from frieze.renderer.spec.render_spec import RenderSpec
from support.fuzz_specs import act_on_spec
from support.fuzz_values import changes, scalars, seldom, texts, values


def yaml_texts(keys: list[str]) -> SearchStrategy[bytes]:
    """Bytes of a YAML file: one that was written, one that was cut or changed, or anything."""
    name = seldom(texts(), st.sampled_from(keys))
    trees = seldom(st.dictionaries(name, values(), max_size=4), changes(RenderSpec))
    written = st.one_of(trees.map(_dumped), trees.map(json.dumps)).map(_encoded)
    by_hand = st.lists(
        st.tuples(name, st.sampled_from(YAML)).map(lambda pair: f"{pair[0]}: {pair[1]}"), max_size=4
    ).map(lambda lines: _encoded("\n".join(lines)))
    spoilt = st.tuples(written, st.integers(0, 200), st.binary(max_size=3)).map(
        lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + 1 :]
    )
    return st.one_of(written, by_hand, spoilt, st.binary(max_size=60), st.sampled_from(ENCODED))


YAML = [
    *("2024-01-01", "2024-99-99", "2024-01-01T25:00:00Z", "1:30", "9" * 5000, "0x" + "f" * 5000),
    *(".nan", "-.inf", "1e999", "!!binary aGk=", "!!set {a}", "!!bool x", "!!timestamp x", "*a"),
    *("&a [*a]", "{<<: *a}", "!!python/object:os.system x", "[" * 60, "{a: " * 60, "- " * 60, "|"),
    *("? x", "[1, 2", "'", '"\\ud800"', '"\\0"', "\t1", "~", "<<", "=", "!!omap [a]", "!!map [1]"),
    *(
        "yes",
        "on",
        "0b_",
        "+_",
        "0o8",
        "&x &y 1",
        "!x",
        "%",
        "@",
        "`",
        "# x",
        "--- a",
        "...",
        "<<: 1",
    ),
]
ENCODED = [
    b"",
    b"\xef\xbb\xbfprompt: a sun",
    b"\xff\xfep\x00r\x00",
    b"prompt: \xe4",
    b"prompt: a\x00b",
    b"[" * 3000,
    b"{" * 3000,
    b"- " * 3000,
    "a: \u2028b".encode(),
    b"\r\n\r\nprompt: a\r\n",
]


def _dumped(tree: Any) -> str:
    return str(yaml.safe_dump(tree, allow_unicode=True))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def on_preset(folder: Path) -> Callable[[bytes], object]:
    def act(text: bytes) -> object:
        path = folder / "preset.yaml"
        path.write_bytes(text)
        return act_on_spec({**presets.preset(str(path)), "local": True})

    return act


def batch_texts() -> SearchStrategy[tuple[str, bytes]]:
    """The suffix and the bytes of a batch's file."""
    keys = seldom(texts(), st.sampled_from(list(items.KNOWN)))
    own = st.dictionaries(st.sampled_from(items.OWN), texts(), max_size=2)
    odd = st.one_of(st.dictionaries(keys, values(), max_size=2), changes(RenderSpec), own)
    item = st.tuples(odd, own).map(lambda more: {**GOOD_ITEM, **more[0], **more[1]})
    sections = st.fixed_dictionaries(
        {},
        optional={
            "defaults": st.one_of(item, values()),
            "matrix": st.one_of(st.dictionaries(keys, st.lists(scalars(), max_size=3)), values()),
            "items": st.one_of(st.lists(st.one_of(item, values()), max_size=3), values()),
        },
    )
    lists = st.lists(item, max_size=3)
    lines = lists.map(lambda rows: _encoded("\n".join(map(json.dumps, rows))))
    good = st.integers(1, 3).map(lambda number: [GOOD_ITEM | {"seed": n} for n in range(number)])
    return st.one_of(
        st.tuples(st.sampled_from([".yaml", ".json"]), good.map(json.dumps).map(_encoded)),
        st.tuples(st.just(".yaml"), st.one_of(sections, lists).map(_dumped).map(_encoded)),
        st.tuples(st.just(".json"), st.one_of(sections, lists).map(json.dumps).map(_encoded)),
        st.tuples(st.just(".jsonl"), lines),
        st.tuples(
            st.sampled_from([".yaml", ".json", ".jsonl", ".txt"]), yaml_texts(list(items.KNOWN))
        ),
    )


GOOD_ITEM = {"prompt": "a red sun", "size": "64x64"}


def on_batch(folder: Path) -> Callable[[tuple[str, bytes]], object]:
    root = folder / "out"

    def act(example: tuple[str, bytes]) -> object:
        suffix, text = example
        path = folder / f"jobs{suffix}"
        path.write_bytes(text)
        for item in items.read(path, root, {"local": True})[:4]:
            if item.spec.model == "demo":
                _made(item.spec, None, None, None)
            _ = item.digest
        batch_file.preset_files(path)
        return None

    return act
