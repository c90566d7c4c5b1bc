"""Local edits: what is asked for in a part of a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_EDITS = 100


class Edit(BaseModel):
    """Another prompt for a part of the picture: where `mask`, a picture of its shape, is white.

    Grey blends the two prompts. As text it is MASK=PROMPT, the mask up to the first `=`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    mask: str = Field(min_length=1)
    prompt: str = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        if isinstance(value, Mapping | Edit):
            return value
        mask, equals, prompt = value.partition("=") if isinstance(value, str) else ("", "", "")
        if not (mask and equals and prompt):
            raise ValueError("it is not MASK=PROMPT, for example mask.png='a lighthouse'")
        return {"mask": mask, "prompt": prompt}

    def __str__(self) -> str:
        return f"{self.mask}={self.prompt}"
