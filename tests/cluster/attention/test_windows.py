"""Which rows windows need, what they cost, and what they refuse: integers alone."""

from __future__ import annotations

import pytest

from frieze.cluster.attention import Windows
from frieze.cluster.layout import Band, LayoutError

HALVES = Windows.product([range(2, 6), range(6, 10)], [range(4)], "wrap")  # of 8 rows
HANGING = Windows.product([range(-2, 3), range(2, 10)], [range(-1, 2), range(1, 6)], "zeros")
EVEN_AND_ODD = Windows.product([range(0, 8, 2), range(1, 8, 2)], [range(4)])


def test_a_band_needs_the_rows_of_its_windows_alone() -> None:
    assert HALVES.rows_needed(Band(2, 4), 8) == (2, 3, 4, 5)
    assert HALVES.rows_needed(Band(0, 1), 8) == (0, 1, 6, 7)
    assert HALVES.rows_needed(Band(5, 7), 8) == (0, 1, 2, 3, 4, 5, 6, 7)
    assert HANGING.rows_needed(Band(0, 2), 8) == (0, 1, 2)
    assert EVEN_AND_ODD.rows_needed(Band(3, 4), 8) == (1, 3, 5, 7)


def test_rows_of_windows_that_share_no_rows_are_gathered_one_after_the_other() -> None:
    assert [part.rows_needed(Band(0, 8), 8) for part in HALVES.exchanges(8)] == [
        (2, 3, 4, 5),
        (0, 1, 6, 7),
    ]
    assert len(EVEN_AND_ODD.exchanges(8)) == 2
    assert HANGING.exchanges(8) == (HANGING,)


def test_windows_of_one_size_are_stacked() -> None:
    even = Windows.product([range(4)], [range(-2, 2), range(4), range(2, 6), range(4, 8)])
    (narrow, wide) = even.stacks(4, 8)
    assert narrow.columns == ((0, 1),)
    assert wide.columns == ((0, 1, 2, 3), (2, 3, 4, 5), (4, 5, 6, 7))
    (corner, *_) = HANGING.stacks(8, 6)
    assert corner.num_zeros == 5 * 3 - 3 * 2


def test_costs_are_counted_by_query_and_key() -> None:
    bands = (Band(0, 3), Band(3, 4), Band(4, 8))
    assert sum(HALVES.num_pairs(band, 8, 4) for band in bands) == 2 * (4 * 4) ** 2
    assert HANGING.num_pairs(Band(2, 3), 8, 6) == (3 + 6) * (2 * 2 + 5 * 5)
    assert HANGING.counts(Band(2, 3), 8, 6).tolist() == [[2, 4, 2, 2, 2, 2]]


def test_windows_that_miss_a_token_or_meet_themselves_are_refused() -> None:
    gap = Windows.product([range(3), range(4, 8)], [range(4)])
    with pytest.raises(LayoutError, match="row 3, column 0 of 8 x 4 tokens lies in no window"):
        gap.counts(Band(2, 5), 8, 4)
    with pytest.raises(LayoutError, match="round 4 rows or columns twice"):
        Windows.product([range(5)], [range(4)], "wrap").rows_needed(Band(0, 1), 4)
