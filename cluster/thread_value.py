"""What a thread keeps while it is inside, for hooks and calls that nobody can pass it to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Generic, TypeVar

T = TypeVar("T")


class ThreadValue(Generic[T]):
    """A value of one thread: None outside, and on every other thread."""

    def __init__(self, name: str) -> None:
        self._value: ContextVar[T | None] = ContextVar(name, default=None)

    def get(self) -> T | None:
        """This thread's value, or None where it has none."""
        return self._value.get()

    @contextmanager
    def set(self, value: T | None) -> Iterator[None]:
        """Inside, on this thread, it is this value; afterwards what it was, errors or not."""
        token = self._value.set(value)
        try:
            yield
        finally:
            self._value.reset(token)
