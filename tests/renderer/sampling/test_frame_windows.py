from __future__ import annotations

import itertools
import math

import pytest

from frieze.renderer.sampling.frame_windows import frame_windows


@pytest.mark.parametrize("most", [1, 2, 3, 5, 21])
@pytest.mark.parametrize("num_frames", [1, 2, 4, 7, 22, 61, 200])
def test_shares_add_up_to_one_and_neighbours_overlap(num_frames: int, most: int) -> None:
    windows = frame_windows(num_frames, most)
    sums = [0.0] * num_frames
    for window in windows:
        assert window.stop - window.start == len(window.shares) == min(most, num_frames)
        for frame, share in enumerate(window.shares, window.start):
            assert share > 0
            sums[frame] += share
    assert all(math.isclose(each, 1, abs_tol=1e-12) for each in sums)
    starts = [window.start for window in windows]
    least = math.ceil(most / 4) if most > 1 else 0
    assert all(a + most - b >= least for a, b in itertools.pairwise(starts))
    assert (len(windows) == 1) == (num_frames <= most)
