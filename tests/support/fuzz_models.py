"""Model folders for `fuzzing`: configs that lack a key, or hold another value than they should."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from checkpoints import build
from frieze.renderer import render
from frieze.renderer.checkpoints.checkpoint import load_family
from frieze.renderer.errors import FriezeError, RenderFailedError
from frieze.renderer.planning.plan import _made
from frieze.renderer.spec.render_spec import RenderSpec, parse
from frieze.renderer.worker import prompt_encoding
from support.fuzz_specs import GOOD
from support.fuzz_values import seldom, values
from support.shared import kept

# One of each family, and of each scheduler.
CHECKPOINTS = (
    *("flux", "sd3", "qwen", "wan22", "wan-i2v", "sdxl", "sd15", "sd21", "flux2", "zimage"),
    "wan22-small",
)
_ODD = [None, True, False, 0, 1, -1, 2, 3, 7, 1e-9, 0.5, 1e300, 10**9, 2**70, "", "x", [], [1], {}]


@kept
def originals(folder: Path) -> dict[str, Path]:
    """The checkpoints, each in a folder whose files other folders link to."""
    return {name: build(name, folder / "originals" / name) for name in CHECKPOINTS}


def changes_of(path: Path) -> SearchStrategy[dict[str, Any] | str]:
    """The config at a path with a key or two left out or changed; seldom no config at all."""
    config = json.loads(path.read_text())
    keys = sorted(config)

    def change(key: str) -> SearchStrategy[tuple[str, str, Any]]:
        near = st.sampled_from([*_ODD, [config[key]] * 2, *config.values()])
        return st.tuples(
            st.just(key), st.sampled_from(["drop", "set", "set"]), seldom(values(), near)
        )

    def apply(done: list[tuple[str, str, Any]]) -> dict[str, Any]:
        changed = dict(config)
        for key, what, value in done:
            changed.pop(key, None)
            if what == "set":
                changed[key] = value
        return changed

    some = st.lists(st.sampled_from(keys).flatmap(change), min_size=1, max_size=2).map(apply)
    broken = st.sampled_from(
        ["", "[]", "{", "null", "[" * 3000, '{"a": ' + "9" * 5000 + "}", "\xff"]
    )
    return st.integers(0, 60).flatmap(lambda draw: broken if draw == 31 else some)


def folders(
    folder: Path, names: Sequence[str] = CHECKPOINTS, *, tokenizers: bool = False
) -> SearchStrategy[tuple[str, str, Any]]:
    """The name of a checkpoint, one of its JSON files, and what that holds.

    With `tokenizers` it is a file of these, else another.
    """

    def of(name: str) -> SearchStrategy[tuple[str, str, Any]]:
        made = originals(folder)[name]
        files = [made / "model_index.json", *sorted(made.glob("*/*config.json"))]
        read = [path for path in files if not path.parent.name.startswith("tokenizer")]
        if tokenizers:
            read = sorted(made.glob("tokenizer*/*.json"))
        return st.sampled_from(read).flatmap(
            lambda path: st.tuples(
                st.just(name), st.just(str(path.relative_to(made))), changes_of(path)
            )
        )

    return st.sampled_from(names).flatmap(of)


def on_folder(folder: Path) -> Callable[[tuple[str, str, Any]], object]:
    """Plan with the changed checkpoint, and build the part that was changed without its weights."""

    def act(example: tuple[str, str, Any]) -> object:
        spec = _spec_of(folder, example)
        made = _made(spec, None, None, None)
        load_family(made.facts.family).text_shapes(made.facts, spec)
        return str(made)

    return act


def on_prompt(folder: Path) -> Callable[[tuple[str, str, Any]], object]:
    """Plan with the changed checkpoint, load what encodes, and encode a prompt."""

    def act(example: tuple[str, str, Any]) -> object:
        made = _made(_spec_of(folder, example), None, None, None)
        return prompt_encoding.encode_prompts(made, None)

    return act


def on_drawing(folder: Path) -> Callable[[tuple[str, str, Any]], object]:
    """Draw with the changed checkpoint: a picture, or nothing is left."""

    def act(example: tuple[str, str, Any]) -> object:
        out = folder / "drawn.zarr"
        spec = _spec_of(folder, example).model_copy(update={"out": str(out)})
        try:
            return render(spec)
        except RenderFailedError:
            raise  # with a store that can be gone on with
        except FriezeError:
            assert not out.exists(), "a refusal left a store"
            raise
        finally:
            shutil.rmtree(out, ignore_errors=True)

    return act


def _spec_of(folder: Path, example: tuple[str, str, Any]) -> RenderSpec:
    """A spec of the changed checkpoint, whose files were laid out."""
    name, changed, content = example
    target = folder / "changed"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(originals(folder)[name], target, copy_function=_link)
    (target / changed).unlink()
    text = content if isinstance(content, str) else json.dumps(content)
    (target / changed).write_text(text, encoding="latin-1" if text == "\xff" else "utf-8")
    return parse({**GOOD, "model": str(target), "num_inference_steps": 2})


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(source)
