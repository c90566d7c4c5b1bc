"""LoRA files of a spec: parsed once, printed and written as they were given."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from frieze.renderer.errors import SpecError
from frieze.renderer.spec.lora_refs import LoraRef
from frieze.renderer.spec.render_spec import RenderSpec, parse


@pytest.mark.parametrize(
    ("text", "path", "weight"),
    [
        ("a.safetensors", "a.safetensors", 1.0),
        ("a.safetensors=0.8", "a.safetensors", 0.8),
        ("a.safetensors=-1", "a.safetensors", -1.0),
        ("x=1/a.safetensors", "x=1/a.safetensors", 1.0),
        ("x=1/a=2.safetensors=.5", "x=1/a=2.safetensors", 0.5),
        ("~/a.safetensors=1", f"{Path.home()}/a.safetensors", 1.0),
    ],
)
def test_a_file_and_perhaps_a_weight(text: str, path: str, weight: float) -> None:
    (found,) = parse({"lora": [text]}).lora
    assert (found.path, found.weight) == (Path(path), weight)
    assert (str(found), repr(found)) == (text, repr(text))


@pytest.mark.parametrize("text", ["a.safetensors=much", "a.safetensors=nan", "=0.5", "a="])
@pytest.mark.parametrize("field", ["lora", "lora_2"])
def test_a_weight_that_is_no_number_is_refused(field: str, text: str) -> None:
    tail = text.partition("=")[2]
    told = f"lora {text!r}: {tail!r} is no weight; FILE or FILE=0.8 works"
    with pytest.raises(SpecError) as caught:
        parse({field: [text]})
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([5], "lora.0 = 5: Input should be a valid string"),
        (["a\0.safetensors"], "no text in UTF-8, or with a zero byte"),
    ],
)
def test_what_is_no_text_is_refused_as_in_other_fields(value: list[object], told: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse({"lora": value})
    assert told in str(caught.value)


def test_what_is_written_is_what_was_given() -> None:
    texts = ["a.safetensors=0.50", "./b.safetensors"]
    spec = RenderSpec.model_validate({"lora": texts})
    assert spec.picture()["lora"] == list(spec.model_dump()["lora"]) == texts
    assert RenderSpec.model_validate_json(spec.model_dump_json()) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert RenderSpec.model_validate({"lora": spec.lora}) == spec
    assert str(spec.lora) == str(tuple(texts))


def test_a_relative_file_may_be_named_from_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    whole = LoraRef.parse("a/b.safetensors=0.5").absolute()
    assert (str(whole), whole.weight) == ("/a/b.safetensors=0.5", 0.5)
