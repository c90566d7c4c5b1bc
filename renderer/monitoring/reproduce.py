"""The command that draws a picture again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ..spec.render_spec import RenderSpec, StageSpec


def option(field: str, value: Any) -> list[str]:
    """The words of a command line that set a field to a value."""
    flag = "--" + field.replace("_", "-")
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    if isinstance(value, Mapping):
        return [w for k, v in value.items() for w in (flag, f"{k}={json.dumps(v)}")]
    if field == "edit":  # prompts; where their masks lie is told to nobody
        value = [f"MASK={prompt}" for prompt in value]
    if isinstance(value, (list, tuple)):
        return [word for each in value for word in (flag, str(each))]
    return [flag, str(value)]


def command(
    picture: Mapping[str, Any], name: str, num_workers: int = 1, *, upscales: bool = False
) -> tuple[str, str]:
    """The command line that draws a picture again, and the preset it needs, empty if none.

    Fields at their defaults are left out; a cascade does not fit into flags. What an upscale
    began with is told to nobody.
    """
    defaults = RenderSpec().picture()
    given = {field: value for field, value in picture.items() if value != defaults.get(field)}
    prompt = str(picture.get("prompt", ""))
    is_flag_like = prompt.startswith("-")
    words = ["frieze", "render", *([] if is_flag_like else [prompt])]
    if upscales:
        words = ["frieze", "upscale", "PICTURE"]
    stages = given.pop("stages", None)
    if stages:
        words += ["--preset", f"{name}.yaml"]
    size = [given.pop(side, defaults[side]) for side in ("width", "height")]
    words += ["--size", "{}x{}".format(*size)]
    for field, value in given.items():
        if field != "prompt":
            words += option(field, value)
    if num_workers > 1:
        words += option("workers", num_workers)
    words += ["--out", f"{name}.zarr", *(["--", prompt] if is_flag_like else [])]
    return " ".join(shlex.quote(word) for word in words), _preset(stages or [])


def _preset(stages: Sequence[Mapping[str, Any]]) -> str:
    """A cascade as YAML, of which each line here is JSON too."""
    plain = StageSpec().model_dump(mode="json")
    kept = [{k: v for k, v in stage.items() if v != plain.get(k)} for stage in stages]
    lines = [f"  - {json.dumps(stage)}" for stage in kept]
    return "\n".join(["stages:", *lines]) if lines else ""
