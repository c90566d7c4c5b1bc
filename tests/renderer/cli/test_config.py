"""`frieze config`: what it prints is read back as the same spec, whatever is in it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from frieze.renderer.cli.config import as_yaml
from frieze.renderer.errors import SpecError
from frieze.renderer.spec.merging import merge
from frieze.renderer.spec.presets import preset_names
from frieze.renderer.spec.render_spec import RenderSpec, parse
from frieze.renderer.spec.values import is_text
from support.command_line import frieze, refused

TEXT = st.text(min_size=1, max_size=30).filter(is_text)
SCALE = st.floats(0.1, 900)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
STAGE = st.fixed_dictionaries(
    {},
    optional={
        "scale": st.floats(0.01, 1),
        "start": st.floats(0.01, 1),
        "steps": st.integers(1, 1000),
        "shift": SCALE,
        "enlarge": st.sampled_from(["latents", "pixels"]),
        "prompt": TEXT,
        "guidance_scale": SCALE,
        "true_cfg_scale": SCALE,
        "spacing": st.sampled_from(["checkpoint", "even"]),
        "scheduler": TEXT.filter(bool),
        "scheduler_options": st.dictionaries(TEXT, PLAIN, max_size=2),
        "lora": st.lists(st.just("a b.safetensors=0.5"), max_size=2),
    },
)
WORDS = TEXT.filter(bool)


def _is_file(text: str) -> bool:
    """Whether it names a LoRA without a weight."""
    return "=" not in text


FIELDS: dict[str, Any] = {
    **dict.fromkeys(("prompt", "negative_prompt", "model", "revision", "variant"), TEXT),
    **dict.fromkeys(("quantization", "init", "upscale", "image", "mask", "method"), TEXT),
    **dict.fromkeys(("strategy", "decoder", "controlnet", "control", "scheduler"), TEXT),
    **dict.fromkeys(("out", "device", "color"), TEXT),
    "watermark": WORDS,
    **dict.fromkeys(("lora", "lora_2"), st.lists(WORDS.filter(_is_file), max_size=3)),
    **dict.fromkeys(("guidance_scale", "guidance_scale_2", "shift"), SCALE),
    **dict.fromkeys(("fps", "device_memory", "timeout", "wait", "dpi"), st.floats(1.0, 1000)),
    **dict.fromkeys(("height", "width", "num_frames"), st.integers(16, 4096)),
    **dict.fromkeys(("num_inference_steps", "save_every", "ulysses"), st.integers(1, 1000)),
    **dict.fromkeys(("max_sequence_length", "chunk"), st.integers(16, 512)),
    **dict.fromkeys(("overwrite", "trace_digests", "resize_mask"), st.booleans()),
    "address": TEXT.filter(lambda text: "@" not in text),
    "storage_dtype": st.sampled_from(["float8_e4m3fn", "float8_e5m2"]),
    "strength": st.floats(0.01, 1),
    "creativity": st.floats(0, 1),
    "guide": st.sampled_from(["hiflow", "low-band", "detail", "none"]),
    "true_cfg_scale": st.floats(1, 900),
    "seed": st.integers(0, 2**63 - 1),
    **dict.fromkeys(
        ("method_options", "strategy_options", "scheduler_options", "watermark_options"),
        st.dictionaries(TEXT, PLAIN, max_size=4),
    ),
    **dict.fromkeys(
        ("controlnet_conditioning_scale", "control_guidance_start", "control_guidance_end"),
        st.floats(0, 1),
    ),
    "control_mode": st.integers(0, 99),
    "guess_mode": st.booleans(),
    "attend": st.sampled_from(["pooled", "full,windows@0.5"]),
    "wrap": st.sampled_from(["x", "xy"]),
    "cache": st.sampled_from(["0.125", "0.1,ends=2"]),
    "stages": st.lists(STAGE, min_size=1, max_size=3),
    "dtype": st.sampled_from(["float32", "bfloat16", "float16"]),
    "bits": st.sampled_from([8, 16]),
    "edit": st.lists(st.fixed_dictionaries({"mask": WORDS, "prompt": WORDS}), max_size=2),
    "edit_stage": st.just(1),
    "feather": st.integers(0, 4096),
    "resamplings": st.integers(1, 100),
    "place": st.just("16,32"),
    "workers": st.integers(1, 4),
    "max_workers": st.integers(4, 9),
    "local": st.just(False),
    "park": st.sampled_from(["host", "disk"]),
    "guidance_ranks": st.sampled_from([1, 2]),
    **dict.fromkeys(("print", "bleed"), st.none()),  # they contradict sizes: test_place.py
    "intent": st.sampled_from(["perceptual", "relative", "saturation", "absolute"]),
}
ODD = ["yes", "~", "2026-11-30", "1:30", "0x10", "- a", "a: b", "#", "'", '"', "=", "<<", "\u2028"]
ODD += [
    "\x85",
    "1e5",
    ".nan",
    "null",
    " a ",
    "a\nb\n",
    "\ttab",
    "\x1b[2J",
    "\ufeff",
    "\U0001f600",
    "é",
]


FILES = [*filter(_is_file, ODD), "a=b=0.5"]


def test_every_field_is_tried() -> None:
    assert FIELDS.keys() == RenderSpec.model_fields.keys()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("presets") / "merged.yaml"


@settings(deadline=None, max_examples=40, database=None, phases=(Phase.explicit, Phase.generate))
@given(values=st.fixed_dictionaries({}, optional=FIELDS), full=st.booleans(), ascii=st.booleans())
@example(values={"prompt": "x", "method_options": dict.fromkeys(ODD, ODD[::3])}, full=0, ascii=0)
@example(values={"prompt": "\n".join(ODD), "lora": FILES, "out": "=a.tif"}, full=1, ascii=1)
def test_what_is_printed_reads_back_as_the_same_spec(
    file: Path, values: dict[str, Any], full: bool, ascii: bool
) -> None:
    spec = parse(values)
    text = as_yaml(spec, full=full, in_ascii=ascii)
    assert not ascii or text.isascii()
    file.write_text(text, encoding="utf-8")
    read = merge(str(file), None, None, {})
    assert read == spec
    kept = set(yaml.safe_load(text) or {})
    asked = set(RenderSpec.model_fields) if full else spec.model_fields_set
    assert kept - {"workers"} == asked - {"max_workers", "workers"}


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_and_flags_are_merged_as_render_merges_them(name: str, tmp_path: Path) -> None:
    flags = ["--preset", name, "--size", "64x48", "--seed", "9", "--option", "ks=[8,9]"]
    flags += ["--lora", "a b.safetensors=0.5", "--negative-prompt", "no: \u202e#", "--local"]
    shown = frieze("config", "ein Mönd\n", *flags)
    assert (shown.exit_code, shown.stderr) == (0, "")
    (tmp_path / "mine.yaml").write_text(shown.stdout, encoding="utf-8")
    given = {"seed": "9", "method_options": ["ks=[8,9]"], "lora": ["a b.safetensors=0.5"]}
    given |= {"negative_prompt": "no: \u202e#", "local": True}  # type: ignore[dict-item]
    asked = merge(name, "ein Mönd\n", "64x48", given)
    assert merge(str(tmp_path / "mine.yaml"), None, None, {}) == asked
    assert "\u202e" not in shown.stdout


def test_defaults_are_printed_when_asked_for() -> None:
    assert frieze("config", "--seed", "0").stdout == "seed: 0\n"
    whole = yaml.safe_load(frieze("config", "--workers", "2..8", "--full").stdout)
    assert whole.keys() == RenderSpec.model_fields.keys() - {"max_workers"}
    assert (whole["workers"], whole["num_inference_steps"], whole["init"]) == ("2..8", 20, None)


def test_a_password_in_an_address_is_not_printed() -> None:
    shown = frieze("config", "--address", "ray://me:secret@head:10001", "--seed", "3")
    assert shown.stdout == "seed: 3\n"
    assert "left out" in shown.stderr
    assert "secret" not in shown.output
    assert frieze("config", "--address", "ray://head:10001").stdout == "address: ray://head:10001\n"


def test_what_no_preset_could_hold_is_refused() -> None:
    refused(frieze("config", "--size", "0x0"), "width")
    with pytest.raises(SpecError, match="cannot be written as a preset"):
        as_yaml(RenderSpec(method_options={"ks": math.nan}))
