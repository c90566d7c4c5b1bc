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
from frieze.renderer.errors import StoreError
from frieze.renderer.journal.checksums import sealed
from frieze.renderer.monitoring.comparison import compare
from frieze.renderer.monitoring.report import report
from frieze.renderer.monitoring.status import status
from frieze.renderer.outputs.exporting import export
from frieze.renderer.store.integrity.verification import verify
from frieze.renderer.viewer import answers
from frieze.renderer.viewer.entries import Collection
from support.drawing import draw, small_spec, stop_after
from support.fuzz_values import seldom, values
from support.media_files import damaged
from support.shared import kept

LONG, DEEP, DEEPER = "@long@", "@deep@", "@deeper@"  # in the file they are what these are of:
_BIG = {LONG: '"' + "x" * 10**7 + '"', DEEP: "[" * 200 + "]" * 200, DEEPER: "[" * 10**5}
_BIG[DEEPER] += "]" * 10**5
_NAN = float("nan")
_ODD = [
    *(None, True, 0, 1, -1, 2, 0.5, 1e300, -1e300, 10**9, 2**70, 10**400, "", "x", "../x"),
    *("\x1b[2J", "\ud800", [], [1], [[]], {}, {"x": {"x": []}}, [10**400], [1e308, 1e308]),
    *(_NAN, float("inf"), float("-inf"), [_NAN], {"x": _NAN}, LONG, DEEP, DEEPER),
]
# What readers look for, and a small render does not say.
_SOUGHT = [
    *("accuracy", "size", "stages", "workers", "versions", "left", "left_is", "reused"),
    *("evaluations", "peak_bytes", "saving", "resumes", "message", "is_asked", "ranks", "time"),
    *("moved_bytes", "computed", "entropies", "focus", "lines", "states", "kept", "blocks"),
    *("guidance", "cfg", "embedded", "starts_from", "carried", "icc", "exif", "xmp", "profile"),
    *("sampler", "decoder", "detected", "weights", "version", "dpi", "color", "intent", "bleed"),
    *("prompt", "negative_prompt", "model", "seed", "lora", "lora_2", "init", "upscale", "place"),
    *("creativity", "strength", "edit", "method", "method_options", "controlnet", "frames", "fps"),
    *("width", "height", "print", "sources", "outputs", "num_levels", "rank", "levels", "steps"),
]
SUFFIXES = ("png", "tif", "jpg", "exr", "webp", "avif", "pdf", "zarr", "dzi", "iiif")
Change = tuple[str, str, Any]  # a file, how it is changed, and what to
Example = tuple[str, list[Change], str]  # a store, its changes, and the suffix of an export


@kept
def originals(folder: Path) -> dict[str, Path]:
    """A store that is finished, and one that was stopped between its stages' last two steps."""
    found = {name: folder / f"{name}.zarr" for name in ("finished", "stopped")}
    small = {"height": 64, "width": 64, "num_inference_steps": 2, "trace_digests": True}
    draw(found["finished"], **small)
    stop_after(small_spec(found["stopped"], **small), 1)
    return found


def files(folder: Path) -> SearchStrategy[Example]:
    """A store, a few of its files as a stranger may have made them, and a suffix."""

    def of(name: str) -> SearchStrategy[Example]:
        store = originals(folder)[name]
        all_files = [path for path in sorted(store.rglob("*")) if path.is_file()]
        told = [path for path in all_files if path.parent.name == "frieze" and path.name != "lock"]
        read = [path for path in all_files if path.suffix == ".json"]
        path = seldom(st.sampled_from([*all_files, *read * 3]), st.sampled_from(told))
        change = path.flatmap(lambda file: _change(store, file))
        return st.tuples(
            st.just(name), st.lists(change, min_size=1, max_size=3), st.sampled_from(SUFFIXES)
        )

    return st.sampled_from(["finished", "stopped"]).flatmap(of)


def _change(store: Path, file: Path) -> SearchStrategy[Change]:
    name = str(file.relative_to(store))
    spoilt = st.tuples(st.just(name), st.just("spoil"), st.integers(0, 2**40))
    if file.suffix not in (".json", ".jsonl"):
        return spoilt
    lines = file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]
    trees = [json.loads(line) for line in lines]
    for tree in trees:
        tree.pop("documents", None)  # half of all places, and tried with the files that they are of
    inner = [(n, place) for n, tree in enumerate(trees) for place in _places(tree)]
    new = [
        (n, (*place, word))
        for n, tree in enumerate(trees)
        for place in [(), *_places(tree)]
        if isinstance(_at(tree, place), dict)
        for word in _SOUGHT
    ]
    places = st.one_of(st.sampled_from(inner), st.sampled_from(inner), st.sampled_from(new))
    to = seldom(values(), st.sampled_from([*_ODD, "drop", "drop", "drop"]))
    set_ = st.tuples(places, to, seldom(st.just(False), st.just(True)))
    return seldom(spoilt, st.tuples(st.just(name), st.just("set"), set_))


def _places(tree: Any, depth: int = 5) -> list[tuple[Any, ...]]:
    """Where values are in a tree of JSON, the outermost first."""
    keys: list[Any] = list(tree) if isinstance(tree, dict) else []
    keys = list(range(min(len(tree), 3))) if isinstance(tree, list) else keys
    inner = [(key, *place) for key in keys for place in (_places(tree[key], depth - 1))]
    return [(key,) for key in keys] + (inner if depth > 1 else [])


def _at(tree: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        tree = tree[key]
    return tree


def _changed(tree: Any, place: tuple[Any, ...], to: Any) -> None:
    """Set or drop what is at a place, where an earlier change left that."""
    try:
        at = _at(tree, place[:-1])
        if to == "drop":
            del at[place[-1]]
        else:
            at[place[-1]] = to
    except (KeyError, IndexError, TypeError):
        pass


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
    text = file.read_text("utf-8", "replace")
    lines = text.splitlines() if file.suffix == ".jsonl" else [text]
    try:
        tree = json.loads(lines[number])
    except (ValueError, IndexError, RecursionError):
        return  # an earlier change left nothing to change
    _changed(tree, place, to)
    if seals and isinstance(tree, dict) and tree.pop("sum", None) is not None:
        tree = _sealed(tree)
    lines[number] = _encoded(tree)
    file.write_text("\n".join(lines) + ("\n" if file.suffix == ".jsonl" else ""), "utf-8")


def _sealed(tree: dict[str, Any]) -> dict[str, Any]:
    """With the checksum of what a reader finds."""
    text = _encoded(tree)
    try:
        return sealed(json.loads(text) if len(text) > 2**20 or DEEP in str(tree) else tree)
    except RecursionError:
        return tree


def _encoded(tree: Any) -> str:
    text = json.dumps(tree)
    for word, big in _BIG.items():
        text = text.replace(f'"{word}"', big)
    return text


def _copied(folder: Path, name: str, changes: list[Change]) -> Path:
    store = folder / "changed.zarr"
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(originals(folder)[name], store)
    for change in changes:
        applied(store, change)
    return store


def on_store(folder: Path) -> Callable[[Example], object]:
    """What tells of a store, what shows it, and what reads its pixels.

    What refuses it does not end this: the others are tried too, and the first refusal counts.
    """

    def act(example: Example) -> object:
        name, changes, suffix = example
        store = _copied(folder, name, changes)
        refused = [
            error
            for error in (_tried(look, store) for look in (_told, _verified, _compared, _viewed))
            if error is not None
        ]
        refused += filter(None, [_tried(lambda path: _reported(path, folder), store)])
        if name == "finished":
            error = _tried(lambda path: _exported(path, folder / f"export.{suffix}"), store)
            refused += [error] if error is not None else []
        if refused:
            raise refused[0]
        return None

    return act


def _tried(act: Callable[[Path], object], store: Path) -> Exception | None:
    """The refusal, if there is one; what is none ends the example."""
    try:
        act(store)
    except OSError as error:  # of our errors all that stores and exports raise
        if not isinstance(error, StoreError) and type(error).__module__.startswith("builtins"):
            raise
        return error
    return None


def _told(store: Path) -> None:
    found = status(store)
    str(found), found.line()
    json.dumps(found.as_json(), allow_nan=False)


def _verified(store: Path) -> None:
    found = verify(store)
    str(found)
    json.dumps(found.as_json(), allow_nan=False)


def _compared(store: Path) -> None:
    found = compare(str(store))
    str(found)
    json.dumps(found.as_json(), allow_nan=False)


def _viewed(store: Path) -> None:
    shown = Collection(store)
    shown.look()
    json.dumps(answers.everything(shown), allow_nan=False)
    for key, entry in shown.stores.items():
        json.dumps(answers.in_full(key, entry, shown.fit(entry)), allow_nan=False)
        entry.preview(None, 0)
        if entry.fault:
            raise StoreError(entry.fault)


def _reported(store: Path, folder: Path) -> None:
    report(store, folder / "report.html", overwrite=True)


def _exported(store: Path, out: Path) -> None:
    export(str(store), str(out), overwrite=True)


def on_resume(folder: Path) -> Callable[[Example], object]:
    """Go on with it: the picture is there, or it is refused."""

    def act(example: Example) -> object:
        return resume(str(_copied(folder, *example[:2])), wait=60)

    return act
