"""The models of a server: presets by their names, each with the fields that requests start from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SpecError, shown
from ..spec.presets import preset
from ..spec.render_spec import RenderSpec, parse

# What of a preset is the server's own to say.
_OF_THE_SERVER = frozenset(
    {
        *("prompt", "out", "overwrite", "workers", "max_workers", "local", "park", "address"),
        *("device", "device_memory", "timeout", "wait", "trace_digests"),
    }
)


@dataclass(frozen=True)
class ServedModel:
    """A preset that requests name as `model`; `values` are its fields, `spec` the same checked."""

    id: str
    values: Mapping[str, Any]
    spec: RenderSpec

    def as_json(self) -> dict[str, Any]:
        """The API's object of a model."""
        return {"id": self.id, "object": "model", "created": 0, "owned_by": "frieze"}


def served_models(presets: Sequence[str]) -> dict[str, ServedModel]:
    """The models of NAME, FILE.yaml or ID=NAME words, the first for requests that name none.

    Raises `SpecError` for what is no preset, is named twice, or draws no single picture.
    """
    found: dict[str, ServedModel] = {}
    for word in presets:
        called, equals, name = word.partition("=")
        name = name if equals else word
        title = called if equals else Path(name).stem
        if not re.fullmatch(r"[A-Za-z0-9][\w.:-]{0,99}", title):
            raise SpecError(
                f"--preset {shown(word)}: {shown(title)} is no name for clients; ID=PRESET works, "
                "of letters, digits and . : - _"
            )
        if title in found:
            raise SpecError(f"--preset {shown(word)}: {title} is there already; use ID=PRESET")
        found[title] = _model(title, name)
    return found


def _model(title: str, name: str) -> ServedModel:
    values = {k: v for k, v in preset(name).items() if k not in _OF_THE_SERVER}
    try:
        spec = parse(values)
    except SpecError as error:
        raise SpecError(f"preset {name!r}: {error}") from None
    if spec.num_frames != 1:
        raise SpecError(f"preset {name!r} draws clips; a server draws pictures: frieze batch works")
    if spec.init or spec.upscale or spec.image or spec.mask:
        raise SpecError(f"preset {name!r} starts from a picture; here requests bring theirs")
    return ServedModel(title, values, spec)
