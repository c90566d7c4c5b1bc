"""How long a step may be silent, measured by those before it."""

from __future__ import annotations

import pytest

from frieze.renderer.course import HANG_SECONDS, HANGS_AT, hang_limit


@pytest.mark.parametrize(
    ("step_seconds", "timeout", "limit"),
    [
        pytest.param([], 600.0, 600.0, id="the first step may warm up"),
        pytest.param([0.2, 0.1, 0.2], 600.0, HANG_SECONDS, id="short steps: never at once"),
        pytest.param([30.0, 8.0, 9.0], 600.0, 9.0 * HANGS_AT, id="long steps: by the usual one"),
        pytest.param([90.0, 90.0], 600.0, 600.0, id="never later than asked"),
        pytest.param([0.1], 2.0, 2.0, id="nor where little was asked"),
    ],
)
def test_a_step_hangs_when_it_takes_many_times_the_usual(
    step_seconds: list[float], timeout: float, limit: float
) -> None:
    assert hang_limit(step_seconds, timeout) == limit
