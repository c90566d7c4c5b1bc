"""LoRA files as a spec names them: which, and how strongly each is applied."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator

from ..errors import SpecError, shown


@dataclass(frozen=True, repr=False)
class LoraRef:
    """A LoRA file and its weight."""

    text: str  # as it was given
    name: str
    weight: float = 1.0

    @classmethod
    def parse(cls, text: str) -> LoraRef:
        """Of FILE or FILE=WEIGHT; raises `SpecError` for a weight that is no number."""
        name, equals, tail = text.rpartition("=")
        if not equals or tail.endswith(".safetensors"):
            return cls(text, text)
        try:
            weight = float(tail)
        except ValueError:
            weight = math.nan
        if not name or not math.isfinite(weight):
            raise SpecError(
                f"lora {shown(text)}: {shown(tail)} is no weight; FILE or FILE=0.8 works"
            )
        return cls(text, name, weight)

    @property
    def path(self) -> Path:
        """The file; `~` is the home of whoever reads it."""
        return Path(os.path.expanduser(self.name))  # which leaves a home that nobody has as it is

    def absolute(self) -> LoraRef:
        """The same file from any folder, as it is told from here."""
        text, name = (str(Path(t).expanduser().absolute()) for t in (self.text, self.name))
        return LoraRef(text, name, self.weight)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return repr(self.text)


def _lora_ref(value: Any) -> LoraRef:
    if isinstance(value, LoraRef):
        return value
    if not isinstance(value, str):
        raise ValueError("Input should be a valid string")
    return LoraRef.parse(value)


# As a field: read from its text, and written as that.
LoraText = Annotated[LoraRef, PlainValidator(_lora_ref), PlainSerializer(str)]
