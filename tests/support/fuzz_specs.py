"""Specs, methods and their options for `fuzzing`, and the cheap half of planning them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from frieze.renderer import plugins
from frieze.renderer.checkpoints.checkpoint import find
from frieze.renderer.extrapolation.method_options import MethodOptions
from frieze.renderer.outputs import targets
from frieze.renderer.planning.plan import _made
from frieze.renderer.spec import render_spec, stage_spec
from frieze.renderer.spec.render_spec import RenderSpec
from support.fuzz_values import changes, seldom, texts, values
from support.shared import kept

GOOD: Mapping[str, Any] = {"prompt": "a red sun", "height": 64, "width": 64, "local": True}


def planned(found: RenderSpec) -> object:
    """The cheap half of a plan, and where its results would lie."""
    targets.targets(found.out, (), overwrite=found.overwrite)
    return str(_made(found, None, None, None))


def specs() -> SearchStrategy[dict[str, Any]]:
    """A spec that is good but for a few fields."""
    stages = st.lists(
        seldom(changes(stage_spec.StageSpec), st.builds(dict, scale=st.floats(0.1, 1))), max_size=3
    ).map(lambda found: [*found, {"scale": 1.0}])
    sizes = st.sampled_from([16, 64, 256, 272, 512, 4096, 2**20, 17])
    names = st.sampled_from(sorted(plugins.names("methods")))
    plain = st.just({"model": "demo"})
    odd = changes(
        RenderSpec,
        stages=stages,
        height=sizes,
        width=sizes,
        method=names,
        method_options=st.just({}),
        model=seldom(texts(), st.just("demo")),
    )
    return st.tuples(plain, odd).map(lambda parts: {**GOOD, **parts[0], **parts[1]})


def act_on_spec(fields: dict[str, Any]) -> object:
    return planned_if_ours(render_spec.parse(fields))


def planned_if_ours(found: RenderSpec) -> object:
    """`planned`; other folders are only looked for, and the hub is not asked."""
    if found.model.startswith((".", "/", "~")):
        return find(found.model)
    return planned(found) if found.model == "demo" else None


@kept
def options() -> dict[str, dict[str, Any]]:
    """Every method's options and the JSON schema of each."""
    found = {}
    for name in plugins.names("methods"):
        model = getattr(plugins.load("methods", name), "Options", MethodOptions)
        found[name] = model.model_json_schema().get("properties", {})
    return found


def _near(schema: Mapping[str, Any] | None) -> SearchStrategy[Any]:
    parts = [schema or {}, (schema or {}).get("items", {}), *(schema or {}).get("anyOf", ())]
    keys = ("minimum", "exclusiveMinimum", "maximum")
    known = [part[key] for part in parts for key in keys if key in part]
    edges = [bound + by for bound in known for by in (-1e-9, 0, 1e-9, 1)]
    choices = [word for part in parts for word in part.get("enum", ())]
    words = [*choices, "detect", "none", "view", "resolution", "attention"]
    numbers = st.one_of(st.floats(0, 2), st.integers(0, 40), st.sampled_from([*edges, 1e6, 1e-9]))
    return st.one_of(st.sampled_from(words), numbers, st.booleans(), st.lists(numbers, max_size=4))


def methods() -> SearchStrategy[dict[str, Any]]:
    """A method with options of its own, and any sizes."""

    def one(table: dict[str, Any]) -> SearchStrategy[tuple[str, Any]]:
        names = seldom(texts(), st.sampled_from(sorted(table) or ["x"]))
        return names.flatmap(
            lambda key: st.tuples(st.just(key), seldom(values(), _near(table.get(key))))
        )

    def of(name: str) -> SearchStrategy[dict[str, Any]]:
        sizes = st.sampled_from([16, 64, 256, 272, 512, 4096, 2**16, 2**20])
        return st.fixed_dictionaries(
            {
                "method": st.just(name),
                "method_options": st.lists(one(options()[name]), max_size=3).map(dict),
                "height": sizes,
                "width": sizes,
                "num_inference_steps": st.sampled_from([1, 2, 20, 1000]),
            }
        ).map(lambda more: {**GOOD, **more})

    return st.sampled_from(sorted(options())).flatmap(of)
