"""Values that fit no field, or nearly: what `fuzzing` fills fields, words and files with."""

from __future__ import annotations

import string
from typing import Any, Literal, get_args, get_origin

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from pydantic import BaseModel
from pydantic.fields import FieldInfo

HUGE = 10**400
NUMBERS: list[Any] = [
    *(0, 1, -1, 2, 3, 7, 15, 16, 17, 64, 255, 256, 1000, 4096, 2**16, 2**31 - 1, 2**31, 2**32),
    *(2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64, 10**18, 10**30, HUGE, -HUGE, -(2**63)),
    *(0.0, -0.0, 0.5, 1.0, 1.5, 1e-3, 1e-9, 1e-300, 5e-324, 1e30, 1e300, 1.7976931348623157e308),
    *(float("nan"), float("inf"), float("-inf"), -1e-9, -1e300),
]
TEXTS = [
    *("", " ", "x", "0", "-1", "1e3", "1e400", "nan", "NaN", "inf", "true", "null", "None", "[]"),
    *("\u0661\u0662", "\uff11\uff12"),
    *("½", "0x10", "1_000", "1,5", "--", "-", "=", "a=b", ":", "..", "."),
    *("/", "//", "~", "~nobody/x", "./", "../..", "/dev/null", "/dev/zero", "/proc/self/mem", "\n"),
    *(
        "\t",
        "\x00",
        "a\x00b",
        "\x1b[2J",
        "\x07",
        "\u202e",
        "\u2028",
        "\ud800",
        "\udcff",
        "\U0001f9d1",
    ),
    *(
        "a" * 300,
        "ä" * 200,
        "山" * 130,
        "a/" * 3000,
        "x" * 20_000,
        "%s%n{}{0}{name}",
        "s3://",
        "s3:",
    ),
    *("s3://a/b", "s3://../x", "gs://a/b", "file:///x", "http://[", "2..", "..2", "2..8", "8..2"),
    *(
        "9" * 5000,
        "1" * 400,
        "1x",
        "64x64",
        "64×64",
        "0x0",
        "1e3x2",
        "\uff11\uff12x12",
        "-4x4",
        "999999999x16",
    ),
    *("9999999999x9999999999", "a.png", "a.tif", "a.zarr", "a.mp4", ".zarr", "a.zarr/", "{name}"),
    *("demo", "none", "auto", "pi", "cpu", "cuda", "cuda:99", "meta", "mps", "xpu", "cpu:7", "hpu"),
    *("x.safetensors", "x.safetensors=", "x=1e999", "=0.5", "a=0x1", "x.yaml", "a/b", "a/b/c"),
]


def texts() -> SearchStrategy[str]:
    """Words that programs have stumbled over, and any others."""
    return st.one_of(
        st.sampled_from(TEXTS),
        st.text(max_size=20),
        st.text(st.characters(codec=None, categories=("Cs", "Cc", "L", "N", "P")), max_size=12),
        st.text(string.printable, max_size=30),
    )


def scalars() -> SearchStrategy[Any]:
    """A value that is no list."""
    return st.one_of(
        st.none(), st.booleans(), st.sampled_from(NUMBERS), st.integers(), st.floats(), texts()
    )


def values() -> SearchStrategy[Any]:
    """Any value that JSON has, and Python's floats, nested a little."""
    return st.recursive(
        scalars(),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(texts(), inner, max_size=3)
        ),
        max_leaves=6,
    )


def seldom(rare: SearchStrategy[Any], often: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """One in eight is rare."""
    return st.integers(0, 2**16).flatmap(lambda draw: rare if draw % 8 == 5 else often)


def near(field: FieldInfo) -> SearchStrategy[Any]:
    """Values of the field's own kind, its bounds and just beyond them included."""
    bounds = [v for m in field.metadata for k, v in vars_of(m).items() if k in ("ge", "gt", "le")]
    kinds = [field.annotation, *get_args(field.annotation)]
    found: list[SearchStrategy[Any]] = []
    if int in kinds:
        edges = [bound + by for bound in bounds for by in (-1, 0, 1)]
        found += [st.integers(1, 64), st.sampled_from([*edges, 1, 16, 64, 256, 4096])]
    if float in kinds:
        edges = [bound * by for bound in bounds for by in (0.999999, 1, 1.000001)]
        found += [st.floats(0.01, 10), st.sampled_from([*edges, 0.5, 1, 1e-3, 1e3, 1e30])]
    if bool in kinds:
        found.append(st.booleans())
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    found += [st.sampled_from(words)] if words else []
    found += [texts()] if str in kinds else []
    return st.one_of(*found) if found else st.lists(texts(), max_size=2)


def vars_of(bound: Any) -> dict[str, Any]:
    """The names and values of an annotated bound."""
    return {name: getattr(bound, name) for name in getattr(bound, "__slots__", ())}


def changes(
    model: type[BaseModel], /, **own: SearchStrategy[Any]
) -> SearchStrategy[dict[str, Any]]:
    """A few fields of a model: most near what they may be, some anything."""

    def of(name: str) -> SearchStrategy[tuple[str, Any]]:
        field = model.model_fields.get(name)
        plain = near(field) if field else values()
        return st.tuples(st.just(name), seldom(values(), own.get(name, plain)))

    names = seldom(texts(), st.sampled_from(list(model.model_fields)))
    return st.lists(names.flatmap(of), min_size=1, max_size=4).map(dict)
