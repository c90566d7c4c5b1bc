"""The command that draws a picture again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ..checkpoints.decoder import OWN
from ..spec.lora_refs import LoraRef
from ..spec.render_spec import NO_DECODER, RenderSpec
from ..spec.roles import OF_A_REDRAW, OF_AN_UPSCALE
from ..spec.stage_spec import StageSpec
from ..spec.values import NO_KIND

# What a render reads beside its model. Where that lies is told to nobody: these names stand for it.
FILES = {
    "lora": "LORA",
    "lora_2": "LORA_2",
    "decoder": "DECODER",
    "init": "INIT",
    "upscale": "PICTURE",
    "image": "IMAGE",
    "mask": "MASK",
    "controlnet": "CONTROLNET",
    "control": "CONTROL",
    "edit": "MASK",
}
OF_ENLARGING = (*OF_AN_UPSCALE, "width", "height", "num_frames", "fps", "decoder")


def option(field: str, value: Any) -> list[str]:
    """The words of a command line that set a field to a value."""
    flag = "--" + field.replace("_", "-")
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    if isinstance(value, Mapping):
        return [w for k, v in value.items() for w in (flag, f"{k}={json.dumps(v)}")]
    if isinstance(value, (list, tuple)):
        return [w for each in value for w in (flag, NO_KIND if each is None else str(each))]
    return [flag, str(value)]


def placeless(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The files that a spec reads, by field, without where they lie; a model's own decoder is told.

    Weights of LoRAs and the prompts of edits stay.
    """
    found: dict[str, Any] = {}
    for name in FILES:
        value = spec.get(name)
        if isinstance(value, (list, tuple)):
            value = [_placeless(name, each) for each in value]
        elif value is not None and value != OWN:
            value = FILES[name]
        if value:
            found[name] = value
    if stages := spec.get("stages"):
        found["stages"] = [{k: _told(k, v) for k, v in stage.items()} for stage in stages]
    return found


def _placeless(name: str, entry: Any) -> str:
    """An entry of a list: FILE, FILE=WEIGHT, or a mask and its prompt."""
    if isinstance(entry, Mapping):
        return f"{FILES[name]}={entry.get('prompt', '')}"
    if name not in ("lora", "lora_2"):
        return FILES[name]
    lora = LoraRef.parse(str(entry))
    return FILES[name] if lora.weight == 1 else f"{FILES[name]}={lora.weight!r}"


def command(picture: Mapping[str, Any], name: str, num_workers: int = 1) -> str:
    """The command line that draws a picture again.

    `picture` are the fields that decide its pixels. Those at their defaults are left out.
    """
    defaults = RenderSpec().picture()
    given = {field: value for field, value in picture.items() if value != defaults.get(field)}
    if picture.get("place") is not None:
        given["strength"] = picture.get("strength")
        given["decoder"] = picture.get("decoder") or NO_DECODER
    prompt = str(picture.get("prompt", ""))
    is_flag_like = prompt.startswith("-")
    words = ["frieze", "render", *([] if is_flag_like else [prompt])]
    upscale = given.pop("upscale", None)
    if upscale is not None:
        redraws = given.get("creativity") is not None
        kept = (*OF_ENLARGING, *OF_A_REDRAW) if redraws else OF_ENLARGING
        given = {field: value for field, value in given.items() if field in kept}
        words, is_flag_like = ["frieze", "upscale", str(upscale)], False
        words += ["--with", "render", *(["--prompt", prompt] if prompt else [])] if redraws else []
        if redraws and "decoder" not in given:
            words += option("decoder", NO_DECODER)
    stages = given.pop("stages", None)
    for stage in _given(stages or []):
        words += option("stages", stage)
    size = [given.pop(side, defaults[side]) for side in ("width", "height")]
    words += ["--size", "{}x{}".format(*size)]
    for field, value in given.items():
        if field != "prompt":
            words += option(field, value)
    if num_workers > 1:
        words += option("workers", num_workers)
    words += ["--out", f"{name}.zarr", *(["--", prompt] if is_flag_like else [])]
    return shlex.join(words)


def _told(field: str, value: Any) -> Any:
    """A field of a stage, its files without where they lie."""
    return [_placeless(field, each) for each in value] if field in FILES and value else value


def _given(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    """What stages have that is not the default, each as the JSON that --stages reads too."""
    plain = StageSpec().model_dump(mode="json")
    kept = [{k: _told(k, v) for k, v in s.items() if v != plain.get(k)} for s in stages]
    return [json.dumps(stage) for stage in kept]
