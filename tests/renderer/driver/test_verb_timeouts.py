"""How long a verb may be silent, measured by those before it."""

from __future__ import annotations

import pytest

from frieze.renderer.driver.verb_timeouts import FACTOR, NEW_SECONDS, USUAL_SECONDS, VerbTimeouts

AREA = 64 * 64


def after(timeout: float, **taken: list[float]) -> VerbTimeouts:
    """What is allowed after verbs on one canvas took so many seconds."""
    patience = VerbTimeouts(timeout)
    for verb, times in taken.items():
        for seconds in times:
            patience.took(verb, AREA, seconds)
    return patience


@pytest.mark.parametrize(
    ("step_seconds", "timeout", "limit"),
    [
        pytest.param([], 600.0, 600.0, id="the first step may warm up"),
        pytest.param([0.2, 0.1, 0.2], 600.0, USUAL_SECONDS, id="short steps: never at once"),
        pytest.param([30.0, 8.0, 9.0], 600.0, 9.0 * FACTOR, id="long steps: by the usual one"),
        pytest.param([90.0, 90.0], 600.0, 600.0, id="never later than asked"),
        pytest.param([0.1], 2.0, 2.0, id="nor where little was asked"),
    ],
)
def test_a_step_hangs_when_it_takes_many_times_the_usual(
    step_seconds: list[float], timeout: float, limit: float
) -> None:
    assert after(timeout, step=step_seconds).limit("step", AREA) == limit


def test_what_is_new_on_a_canvas_is_measured_by_its_kin_and_by_smaller_canvases() -> None:
    forever = 10.0**6
    steps = after(forever, step=[3.0])
    assert steps.limit("step", 2 * AREA) == FACTOR * 3.0 * 2**2
    assert steps.limit("step", AREA // 2) == NEW_SECONDS
    assert steps.limit("decode", AREA) == FACTOR * 10.0 * 3.0
    assert steps.limit("save", AREA) == NEW_SECONDS
    painted = after(forever, step=[0.1], decode_stage=[20.0])
    assert painted.limit("decode", 4 * AREA) == FACTOR * 20.0 * 4**2
    # The noise of a first stage is no measure of a later one's beginning, which encodes.
    begun = after(forever, begin=[0.01], decode_stage=[20.0])
    assert begun.limit("begin", 4 * AREA) == FACTOR * 2.0 * 20.0 * 4**2


def test_what_nothing_compares_to_has_all_the_time() -> None:
    patience = after(600.0, condition=[0.1])
    for verb in ("load", "restore", "set_plan", "begin", "decode"):
        assert patience.limit(verb, AREA) == 600.0
