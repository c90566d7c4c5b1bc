"""Errors as the images API tells them: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ..errors import FriezeError, line, shown
from ..spec.render_spec import RenderSpec

# An absolute path in a message: clients are told the last part of its name alone. Addresses of this
# API begin as none does.
_PATH = re.compile(r"(?<![\w.:/])/(?!v1/)(?:[^\s'\",;:/]+/)+([^\s'\",;:/]*)")
_FIELD = re.compile(r"(?:unknown field ')?([a-z][a-z0-9_]*)\b")
# Faults that another attempt meets again: the official client tries those of a server anew.
FINAL = MappingProxyType({"x-should-retry": "false"})


class ApiError(Exception):
    """What a request is answered with instead; `message` is one line without paths."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers)
        self.body = {
            "error": {"message": public(message), "type": kind, "param": param, "code": code}
        }


def invalid(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """A request that asks for what cannot be: 400."""
    return ApiError(400, message, param=param, code=code)


def refused(error: FriezeError, size: str | None = None) -> ApiError:
    """What the spec or the plan has against a request: 400, with the field that it names first.

    `size` is what the client asked for, whose height and width have no names in the API.
    """
    message, param = str(error), param_of(str(error))
    return invalid(f"size {shown(size)}: {message}" if size and param == "size" else message, param)


def param_of(message: str) -> str | None:
    """The API's field for that of a spec which a message begins with."""
    found = _FIELD.match(message)
    name = found[1] if found and found[1] in RenderSpec.model_fields else None
    return "size" if name in ("height", "width") else name


def public(message: Any) -> str:
    """A message without the folders of this machine."""
    return _PATH.sub(r"\1", line(message))
