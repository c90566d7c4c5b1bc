"""Stages in words say what a preset says; bad words are refused in a line."""

from __future__ import annotations

from typing import Any

import pytest

from frieze.renderer.errors import SpecError
from frieze.renderer.spec.render_spec import parse


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("scale=0.5,steps=20", {"scale": 0.5, "steps": 20}),
        (" start=0.3, guidance-scale=1 ", {"start": 0.3, "guidance_scale": 1.0}),
        ("lora=a,b.safetensors=0.5", {"lora": ["a,b.safetensors=0.5"]}),
        ("lora=a.safetensors,lora=b=2,steps=4", {"lora": ["a.safetensors", "b=2"], "steps": 4}),
        ("lora=,lora_2=c.safetensors", {"lora": [], "lora_2": ["c.safetensors"]}),
        ("attend=full,pooled@0.5,start=0.4", {"attend": "full,pooled@0.5", "start": 0.4}),
        ("prompt=a sun, red, 2 = two,steps=3", {"prompt": "a sun, red, 2 = two", "steps": 3}),
        ("prompt=", {"prompt": ""}),
        (
            "scheduler=LCMScheduler,scheduler_options=timestep_spacing=trailing,"
            "scheduler_options=shift_terminal=null",
            {
                "scheduler": "LCMScheduler",
                "scheduler_options": {"timestep_spacing": "trailing", "shift_terminal": None},
            },
        ),
        ("{scale: 0.5, lora: [a.safetensors=0.8]}", {"scale": 0.5, "lora": ["a.safetensors=0.8"]}),
        ('{"prompt": "\\ud83d\\ude00 a=b, c=d"}', {"prompt": "\U0001f600 a=b, c=d"}),
        ("{}", {}),
    ],
)
def test_words_say_what_a_preset_says(words: str, fields: dict[str, Any]) -> None:
    assert parse({"stages": [words]}) == parse({"stages": [fields]})


def test_control_other_words_are_another_stage() -> None:
    assert parse({"stages": ["steps=4"]}) != parse({"stages": ["steps=5"]})


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", "KEY=VALUE"),
        ("0.5", "KEY=VALUE"),
        ("=4", "KEY=VALUE"),
        ("steps=4,guidance=1", "the nearest is 'guidance_scale'"),
        ("steps=4,steps=5", "'steps' is given twice"),
        ("steps=four", "stages.0.steps = 'four'"),
        ("steps=", "stages.0.steps = ''"),
        ("steps=4.5", "stages.0.steps"),
        ("start=0", "stages.0.start"),
        ("scale=2", "stages.0.scale"),
        ("scale=nan", "stages.0.scale"),
        ("lora=a.safetensors=much", "'much' is no weight"),
        ("scheduler_options=trailing", "timestep_spacing=trailing"),
        ("attend=all", "stages.0.attend"),
        ("{scale: 0.5", "a line of a preset"),
        ("{scale: 0.5} 3", "a line of a preset"),
        ("steps=4\x1b[2J", "stages.0.steps"),
    ],
)
def test_bad_words_are_refused_in_a_line(words: str, told: str) -> None:
    with pytest.raises(SpecError) as error:
        parse({"stages": [words]})
    assert told in str(error.value)
    assert "Tuple" not in str(error.value)
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)


def test_many_stages_are_too_many() -> None:
    with pytest.raises(SpecError, match="at most 100"):
        parse({"stages": ["scale=1"] * 101})
