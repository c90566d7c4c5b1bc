"""What several tests are held to: made once, and never of a renderer that a test has changed.

A reference that is drawn when it is first asked for is drawn by whichever test asks first. One that
has replaced a part of the renderer by then would leave the others a wrong picture to be held to,
in an order of tests that a scheduler makes up.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

import pytest

Make = TypeVar("Make", bound=Callable[..., Any])
_patches: weakref.WeakSet[pytest.MonkeyPatch] = weakref.WeakSet()
_make_patch = pytest.MonkeyPatch.__init__


def _made(patch: pytest.MonkeyPatch) -> None:
    _make_patch(patch)
    _patches.add(patch)


# pytest keeps no list of them.
pytest.MonkeyPatch.__init__ = _made  # type: ignore[method-assign]


def patched() -> list[str]:
    """The names of attributes that some test has replaced, and not yet given back."""
    replaced = [entry for patch in list(_patches) for entry in patch._setattr]
    return [f"{getattr(owner, '__name__', owner)}.{name}" for owner, name, _ in replaced]


def whole(what: object) -> None:
    """AssertionError where something is replaced: `what` would be made of it."""
    replaced = patched()
    assert not replaced, f"ask for {what} before {', '.join(replaced)} is replaced"


class Once:
    """Values by key, each made when it is first asked for, of a renderer that is whole."""

    def __init__(self) -> None:
        self._found: dict[Hashable, Any] = {}

    def __call__(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self._found:
            whole(key)
            self._found[key] = make()
        return self._found[key]


def kept(make: Make) -> Make:
    """`functools.cache`, for what is made of a renderer that is whole."""
    once = Once()

    @functools.wraps(make)
    def found(*args: Any) -> Any:
        return once((make.__name__, *args), lambda: make(*args))

    return cast(Make, found)
