"""Files of a model folder in diffusers' layout, read with an error that names the file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .errors import ModelError
from .input_files import fault
from .values import checked


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder; raises `ModelError` that names the file."""
    if not os.path.lexists(path):
        raise ModelError(f"{path} is missing; a folder in diffusers layout has it")
    if (why := fault(path)) is not None:
        raise ModelError(f"{path} cannot be read as JSON ({why}); fetch the model anew")
    try:
        values = checked(json.loads(path.read_text(encoding="utf-8")), any_number=True)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}); fetch the model anew") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path} holds {type(values).__name__}; a JSON object works")
    return values
