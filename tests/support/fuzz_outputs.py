"""Files made from stores, and bodies of requests, for `fuzzing`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from pydantic import BaseModel

from frieze.renderer import plugins
from frieze.renderer.errors import FriezeError, SpecError, line
from frieze.renderer.outputs.exporting import export
from frieze.renderer.server import image_request
from frieze.renderer.server.allowed_fields import DEFAULT, FURTHER, SHORT, allowed
from frieze.renderer.server.api_error import ApiError
from frieze.renderer.server.image_request import ImageRequest
from frieze.renderer.server.limits import Limits
from frieze.renderer.server.served_models import served_models
from frieze.renderer.spec.render_spec import RenderSpec
from support.fuzz_specs import act_on_spec
from support.fuzz_stores import originals
from support.fuzz_values import changes, near, seldom, texts, values
from support.serving import PRESET
from support.shared import kept

Written = tuple[str, dict[str, Any], dict[str, Any]]
COLORS = ("srgb", "display-p3", "adobe-rgb", "a.icc", "cmyk", "")


@kept
def formats() -> dict[str, type[BaseModel] | None]:
    """Suffixes and the options of their formats."""
    modules = [plugins.load("exports", name) for name in plugins.names("exports")]
    return {suffix: getattr(m, "Options", None) for m in modules for suffix in m.suffixes}


def exports() -> SearchStrategy[Written]:
    """A name, the options of its format, and what all formats are told."""

    def of(suffix: str) -> SearchStrategy[Written]:
        taken = formats()[suffix]
        own = seldom(
            texts().map(lambda name: {name: "1"}), changes(taken) if taken else st.just({})
        )
        quick = (
            {"workers": st.sampled_from([0, 1, 2])}
            if "workers" in getattr(taken, "model_fields", ())
            else {}
        )
        options = st.tuples(own, st.fixed_dictionaries(quick)).map(lambda two: two[0] | two[1])
        name = seldom(texts(), st.just("made")).map(lambda stem: stem + suffix)
        told = st.fixed_dictionaries(
            {},
            optional={
                "color": seldom(texts(), st.sampled_from(COLORS)),
                "intent": seldom(texts(), st.sampled_from(["relative", "perceptual", "absolute"])),
                "dpi": st.one_of(near(RenderSpec.model_fields["dpi"]), st.just(300.0)),
            },
        )
        return st.tuples(name, options, told)

    return st.sampled_from(sorted(formats())).flatmap(of)


def on_export(folder: Path) -> Callable[[Written], object]:
    """Write it: the file is there, or nothing is."""
    place = folder / "written"

    def act(example: Written) -> object:
        name, options, told = example
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        try:
            return export(
                str(originals(folder)["finished"]),
                f"{place}/{name}",
                overwrite=False,
                options=options,
                **told,
            )
        except FriezeError:
            assert not [*place.iterdir()], "a refusal left a file"
            raise

    return act


def bodies() -> SearchStrategy[tuple[bool, dict[str, Any]]]:
    """Whether it came as a form, and a body that is good but for some fields."""
    spec_fields = seldom(
        st.sampled_from(sorted(RenderSpec.model_fields)), st.sampled_from([*DEFAULT, *FURTHER])
    )

    def of(name: str) -> SearchStrategy[tuple[str, Any]]:
        field = RenderSpec.model_fields.get(SHORT.get(name, name))
        return st.tuples(st.just(name), seldom(values(), near(field) if field else values()))

    own = st.lists(st.one_of(spec_fields, st.sampled_from([*SHORT])).flatmap(of), max_size=3).map(
        dict
    )
    api = st.one_of(st.just({}), changes(ImageRequest))
    base = {"prompt": "a sun", "size": "64x64"}
    return st.tuples(
        st.booleans(), st.tuples(own, api).map(lambda two: {**base, **two[0], **two[1]})
    )


def on_body(folder: Path) -> Callable[[tuple[bool, dict[str, Any]]], object]:
    """What a server does with it before it waits to be drawn."""
    file = folder / "tiny.yaml"
    file.write_text(PRESET)
    model = served_models([str(file)])["tiny"]
    limits = Limits(pixels=128 * 128, steps=50, queue=20, body=2**20, wait=100)
    fields = allowed(FURTHER)

    def act(example: tuple[bool, dict[str, Any]]) -> object:
        is_form, body = example
        if is_form:
            body = {name: v if isinstance(v, str) else json.dumps(v) for name, v in body.items()}
        try:
            request, own = image_request.read(body, fields, is_form=is_form)
            items = image_request.items(request, own, model, limits, {})
        except ApiError as error:
            told = str(error.args[0] if error.args else error)
            assert told == line(told), told
            raise SpecError(told) from None
        return [
            act_on_spec({k: v for k, v in item.items() if k not in ("name", "out")})
            for item in items[:1]
        ]

    return act
