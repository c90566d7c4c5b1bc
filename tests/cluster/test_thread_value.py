"""A value of one thread: inside alone, and there alone."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

from frieze.cluster.thread_value import ThreadValue


def test_it_is_there_inside_and_what_it_was_before_after_errors_too() -> None:
    value = ThreadValue[int]("x")
    assert value.get() is None
    with value.set(1):
        with contextlib.suppress(ZeroDivisionError), value.set(2):
            assert value.get() == 2
            raise ZeroDivisionError
        assert value.get() == 1
        with value.set(None):
            assert value.get() is None
    assert value.get() is None


def test_other_threads_have_none_of_it() -> None:
    value, other = ThreadValue[int]("x"), ThreadValue[int]("x")
    with value.set(1), ThreadPoolExecutor(1) as pool:
        assert pool.submit(value.get).result() is None
        assert other.get() is None
