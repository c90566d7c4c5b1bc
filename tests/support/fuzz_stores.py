"""Files of stores for `fuzzing`: other values under checksums that fit, and spoilt bytes."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from frieze.renderer import resume
from frieze.renderer.journal.checksums import sealed
from frieze.renderer.monitoring.report import report
from frieze.renderer.monitoring.status import status
from frieze.renderer.outputs.exporting import export
from frieze.renderer.store.integrity.verification import verify
from support.drawing import draw, small_spec, stop_after
from support.fuzz_values import seldom, values
from support.media_files import damaged
from support.shared import kept

_ODD = [None, True, 0, 1, -1, 2, 0.5, 1e300, 10**9, 2**70, "", "x", "../x", "\x1b[2J", [], [1], {}]
Change = tuple[str, str, Any]  # a file, how it is changed, and what to


@kept
def originals(folder: Path) -> dict[str, Path]:
    """A store that is finished, and one that was stopped between its stages' last two steps."""
    found = {name: folder / f"{name}.zarr" for name in ("finished", "stopped")}
    small = {"height": 64, "width": 64, "num_inference_steps": 2}
    draw(found["finished"], **small)
    stop_after(small_spec(found["stopped"], **small), 1)
    return found


def files(folder: Path) -> SearchStrategy[tuple[str, Change]]:
    """A store, and one of its files as a stranger may have made it."""

    def of(name: str) -> SearchStrategy[tuple[str, Change]]:
        store = originals(folder)[name]
        all_files = [path for path in sorted(store.rglob("*")) if path.is_file()]
        read = [path for path in all_files if path.suffix in (".json", ".jsonl")]
        path = st.one_of(
            st.sampled_from(read), seldom(st.sampled_from(all_files), st.sampled_from(read))
        )
        return st.tuples(st.just(name), path.flatmap(lambda file: _change(store, file)))

    return st.sampled_from(["finished", "stopped"]).flatmap(of)


def _change(store: Path, file: Path) -> SearchStrategy[Change]:
    name = str(file.relative_to(store))
    spoilt = st.tuples(st.just(name), st.just("spoil"), st.integers(0, 2**40))
    if file.suffix not in (".json", ".jsonl"):
        return spoilt
    lines = file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]
    places = [
        (number, place) for number, line in enumerate(lines) for place in _places(json.loads(line))
    ]
    to = seldom(values(), st.sampled_from([*_ODD, "drop"]))
    set_ = st.tuples(st.sampled_from(places), to, st.booleans())
    return seldom(spoilt, st.tuples(st.just(name), st.just("set"), set_))


def _places(tree: Any, depth: int = 4) -> list[tuple[Any, ...]]:
    """Where values are in a tree of JSON, the outermost first."""
    keys: list[Any] = list(tree) if isinstance(tree, dict) else []
    keys = list(range(min(len(tree), 3))) if isinstance(tree, list) else keys
    inner = [(key, *place) for key in keys for place in (_places(tree[key], depth - 1))]
    return [(key,) for key in keys] + (inner if depth > 1 else [])


def _changed(tree: dict[str, Any], place: tuple[Any, ...], to: Any) -> None:
    """Set or drop what is at a place."""
    at: Any = tree
    for key in place[:-1]:
        at = at[key]
    if to == "drop":
        del at[place[-1]]
    else:
        at[place[-1]] = to


def applied(store: Path, change: Change) -> None:
    """Change a file of a store; with checksums that fit where that is asked for."""
    name, how, value = change
    file = store / name
    if how == "spoil":
        file.write_bytes(
            damaged(file.read_bytes(), random.Random(value)) if file.stat().st_size else b"x"
        )
        return
    (number, place), to, seals = value
    text = file.read_text()
    lines = text.splitlines() if file.suffix == ".jsonl" else [text]
    tree = json.loads(lines[number])
    _changed(tree, place, to)
    if seals and isinstance(tree, dict) and tree.pop("sum", None) is not None:
        tree = sealed(tree)
    lines[number] = json.dumps(tree)
    file.write_text(
        "\n".join(lines) + ("\n" if file.suffix == ".jsonl" else ""), "utf-8", "replace"
    )


def _copied(folder: Path, name: str, change: Change) -> Path:
    store = folder / "changed.zarr"
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(originals(folder)[name], store)
    applied(store, change)
    return store


def on_store(folder: Path) -> Callable[[tuple[str, Change]], object]:
    """What tells of a store, and what reads its pixels."""

    def act(example: tuple[str, Change]) -> object:
        store = _copied(folder, *example)
        str(verify(store)), verify(store).as_json()
        found = status(store)
        str(found), found.line(), json.dumps(found.as_json())
        report(store, folder / "report.html", overwrite=True)
        if example[0] == "finished":
            export(str(store), str(folder / "changed.png"), overwrite=True)
        return found

    return act


def on_resume(folder: Path) -> Callable[[tuple[str, Change]], object]:
    """Go on with it: the picture is there, or it is refused."""

    def act(example: tuple[str, Change]) -> object:
        store = _copied(folder, *example)
        return resume(str(store), wait=60)

    return act
