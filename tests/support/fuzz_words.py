"""Words of the command line for `fuzzing`; what would draw or reach out is left at its door."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from typing import Any, NoReturn
from unittest.mock import patch

from click import Command
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from typer.core import TyperGroup
from typer.main import get_command

from frieze.cluster.ray import jobs as ray_jobs
from frieze.renderer.batches import items
from frieze.renderer.cli import app, batch, doctor, machine, render, serve, train, upscale
from frieze.renderer.errors import PlanError, SpecError, StoreError
from frieze.renderer.files.location import location
from frieze.renderer.monitoring import calibration
from frieze.renderer.outputs import targets
from frieze.renderer.spec.render_spec import RenderSpec, parse
from frieze.renderer.store.store import Store
from support.fuzz_specs import planned_if_ours
from support.fuzz_values import HUGE, NUMBERS, near, seldom, texts
from support.shared import kept


@kept
def commands() -> TyperGroup:
    """The commands, without the handler that makes one line of a fault."""
    group = get_command(app.app)
    assert isinstance(group, TyperGroup)
    return group


def command(name: str) -> Command:
    """One of them, or of a group of them by both names."""
    found: Command = commands()
    for each in name.split():
        assert isinstance(found, TyperGroup)
        found = found.commands[each]
    return found


# Words that each command needs first; a store that is there is called so in the folder of `kinds`.
STORE = "there.zarr"
DRAW = ("a red sun", "--size", "64x64", "--local")
FIRST: dict[str, list[tuple[str, ...]]] = {
    "render": [DRAW, (*DRAW, "--dry-run"), (*DRAW, "--preset", "demo")],
    "plan": [DRAW, ("--preset", "demo")],
    "resume": [(STORE,)],
    "batch": [("jobs.yaml",)],
    "export": [(STORE, "a.png"), (STORE, "a.tif", "--overwrite"), (STORE,)],
    "status": [(STORE,), ("job", "--address", "http://127.0.0.1:1")],
    "report": [(STORE, "a.html", "--overwrite"), (STORE,)],
    "doctor": [(), ("demo", "--size", "64x64")],
    "config": [DRAW[:-1], ("--preset", "demo")],
    "serve": [("--preset", "demo"), ()],
    "train decoder": [("--data", "scenes", "--out", "made")],
    "train lora": [("--data", "scenes", "--size", "64x64", "--out", "a.safetensors")],
    "upscale": [("whole.png", "--size", "128x128", "--local", "--dry-run")],
    "submit": [("--", "render", *DRAW, "--out", "/a.zarr"), ("--", "batch", "jobs.yaml"), ("--",)],
}


def words() -> SearchStrategy[list[str]]:
    """A command with some of its options, and words that fit or do not."""
    fields = {"--" + name.replace("_", "-"): f for name, f in RenderSpec.model_fields.items()}

    def pair(flag: str) -> SearchStrategy[tuple[str, ...]]:
        plain = near(fields[flag]).map(str).map(_as_argument) if flag in fields else arguments()
        return st.tuples(st.just(flag), seldom(arguments(), plain))

    def of(name: str) -> SearchStrategy[list[str]]:
        options = [param for param in command(name).params if param.opts[0][0] == "-"]
        flags = [flag for param in options for flag in param.opts if not is_switch(param)]
        switches = [f for p in options for f in (*p.opts, *p.secondary_opts) if is_switch(p)]
        alone = st.sampled_from([*switches, "--nothing"]).map(lambda word: (word,))
        group = st.one_of(st.sampled_from([*flags, "--x"]).flatmap(pair), alone)
        loose = seldom(arguments().map(lambda word: (word,)), group)
        first = seldom(st.lists(arguments(), max_size=2).map(tuple), st.sampled_from(FIRST[name]))
        return st.tuples(st.lists(loose, max_size=4), first, st.booleans()).map(
            lambda parts: [*name.split(), *_joined(*parts)]
        )

    any_words = st.lists(arguments(), max_size=4)
    return seldom(any_words, st.sampled_from(sorted(FIRST)).flatmap(of))


def _joined(loose: list[tuple[str, ...]], first: tuple[str, ...], is_after: bool) -> list[str]:
    more = [word for group in loose for word in group]
    return [*first, *more] if is_after else [*more, *first]


def is_switch(param: Any) -> bool:
    """Whether an option takes no word."""
    return bool(getattr(param, "is_flag", False))


def arguments() -> SearchStrategy[str]:
    """One word as a shell hands it over: no zero byte, bytes that are no UTF-8 as half letters."""
    numbers = st.sampled_from([n for n in NUMBERS if n not in (HUGE, -HUGE)]).map(str)
    pairs = st.tuples(texts(), st.one_of(texts(), numbers)).map("=".join)
    return st.one_of(texts(), numbers, pairs).map(_as_argument)


def _as_argument(text: str) -> str:
    return os.fsdecode(text.replace("\0", "").encode("utf-8", "replace"))


class _NoServer:
    """Stands for the cluster of `submit` and `status`: nothing is reached."""

    def __init__(self, *_: Any) -> None:
        raise ray_jobs.JobError("no cluster here")


def _batch(
    jobs: str | list[dict[str, Any]], out: str, options: Mapping[str, Any], again: str, **_: Any
) -> None:
    root = location(os.path.realpath(out), SpecError)
    for item in items.read(jobs, root, {"local": True})[:4]:
        planned_if_ours(item.spec)


def _render(found: RenderSpec, exports: Sequence[str] = (), **_: Any) -> NoReturn:
    targets.targets(found.out, exports, overwrite=found.overwrite)
    planned_if_ours(found)
    raise PlanError("enough")


def _resume(store: str, exports: Sequence[str] = (), **_: Any) -> NoReturn:
    Store.open(location(store, StoreError))
    raise PlanError("enough")


def _measured(*_: Any) -> NoReturn:
    """A second of work a device, whose figures would be kept for all tests that follow."""
    raise PlanError("enough")


# What would draw, start a Ray or reach out is left at its door.
DOORS: list[tuple[Any, str, Any]] = [
    (render, "draw", _render),
    (render, "finish", _resume),
    (render, "print_plan", lambda found, json, **_: planned_if_ours(found)),
    (upscale, "print_plan", lambda found, json, **_: planned_if_ours(found)),
    (doctor, "_print_repetition", lambda found, detector, json: planned_if_ours(found)),
    (batch, "run", _batch),
    (serve, "_run", lambda found, host, port, **_: None),
    (train, "_run", lambda recipe, trained, out, place, *_, **__: parse(place)),
    (calibration, "rates", _measured),
    (machine, "examine", lambda: ()),
    (ray_jobs, "JobServer", _NoServer),
]


def act_on_words(given: list[str]) -> object:
    group = commands()
    with ExitStack() as stack:
        for module, name, stand_in in DOORS:
            stack.enter_context(patch.object(module, name, stand_in))
        stack.enter_context(redirect_stdout(io.StringIO()))
        stack.enter_context(redirect_stderr(io.StringIO()))
        return TyperGroup.main(group, given, prog_name="frieze", standalone_mode=False)
