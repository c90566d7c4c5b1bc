"""When a fleet grows and shrinks."""

from __future__ import annotations

import pytest

from frieze.cluster.fleet import Bounds, next_size

TWO_TO_EIGHT = Bounds(2, 8)


@pytest.mark.parametrize(
    ("bounds", "num_ranks", "usable"),
    [
        (TWO_TO_EIGHT, 1, 0),
        (TWO_TO_EIGHT, 5, 5),
        (TWO_TO_EIGHT, 11, 8),
        (Bounds(4, 8, unit=4), 7, 4),
        (Bounds(2, 7, unit=2), 9, 6),
    ],
)
def test_bounds_say_how_many_can_be_used(bounds: Bounds, num_ranks: int, usable: int) -> None:
    assert bounds.fit(num_ranks) == usable


@pytest.mark.parametrize(
    ("size", "staying", "ready", "seconds_left", "expected"),
    [
        pytest.param(2, 2, 0, 1e6, 2, id="nobody came"),
        pytest.param(2, 2, 3, 1e6, 5, id="newcomers are taken"),
        pytest.param(2, 2, 9, 1e6, 8, id="never more than wanted"),
        pytest.param(2, 2, 2, 9.9, 2, id="not for the last few seconds"),
        pytest.param(2, 2, 2, 10.1, 4, id="as soon as it pays: half of them are saved"),
        pytest.param(4, 3, 0, 0.0, 3, id="a rank on a leaving node is let go, whatever it costs"),
        pytest.param(4, 3, 1, 0.0, 4, id="or replaced"),
        pytest.param(2, 1, 0, 1e6, 2, id="unless too few would be left: it works while it can"),
        pytest.param(1, 1, 0, 1e6, 1, id="fewer than wanted go on"),
        pytest.param(1, 1, 1, 1e6, 2, id="until others come"),
    ],
)
def test_the_next_step_has_so_many_ranks(
    size: int, staying: int, ready: int, seconds_left: float, expected: int
) -> None:
    assert expected == next_size(
        TWO_TO_EIGHT,
        size=size,
        staying=staying,
        ready=ready,
        seconds_left=seconds_left,
        change_seconds=5.0,
    )
