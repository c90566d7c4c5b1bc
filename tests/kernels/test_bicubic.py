"""A window enlarged by bicubic interpolation, against torch's of the whole."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from frieze.kernels.bicubic import enlarge, source_rows
from tolerances import CONTROL, EXACT_FLOAT64


@pytest.mark.parametrize(
    ("source", "target"),
    [((8, 12), (8, 12)), ((8, 12), (32, 48)), ((7, 5), (40, 23)), ((9, 16), (3, 5))],
)
def test_a_window_is_that_of_the_whole(source: tuple[int, int], target: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *source, dtype=torch.float64)
    whole = F.interpolate(x, size=target, mode="bicubic", align_corners=False)
    assert float((enlarge(x, target, range(target[0]), range(target[1])) - whole).abs().max()) < (
        EXACT_FLOAT64
    )
    rows, columns = range(1, target[0] - 1), range(2, target[1])
    found, expected = enlarge(x, target, rows, columns), whole[..., 1:-1, 2:]
    assert float((found - expected).abs().max()) < EXACT_FLOAT64
    linear = F.interpolate(x, size=target, mode="bilinear", align_corners=False)  # the control
    if source != target:
        assert float((found - linear[..., 1:-1, 2:]).abs().max()) > CONTROL


def test_float32_windows_of_a_wide_canvas_are_equal_to_the_last_bit() -> None:
    x = torch.randn(1, 1, 2, 500)
    size = (4, 100_000)
    far = range(99_000, 99_900)
    whole = enlarge(x, size, range(4), range(98_000, 100_000))
    assert torch.equal(enlarge(x, size, range(1, 2), far), whole[..., 1:2, 1000:1900])


@pytest.mark.parametrize(("source", "target"), [(8, 8), (8, 32), (7, 40), (40, 48), (9, 3)])
def test_rows_of_the_source_are_enough_and_none_too_many(source: int, target: int) -> None:
    x = torch.randn(1, 1, source, 3, dtype=torch.float64)
    for top in range(target):
        rows = range(top, min(top + 3, target))
        held = source_rows(rows, source, target)
        part, place = x[:, :, held.start : held.stop], ((target, 3), rows, range(3))
        found = enlarge(part, *place, first=held.start, height=source)
        assert torch.equal(found, enlarge(x, *place))
        assert len(held) <= 4 + 3 * max(1, -(-source // target))
    if source < target:  # the control: rows from elsewhere
        other = enlarge(part, *place, first=held.start + 1, height=source + 1)
        assert float((other - found).abs().max()) > CONTROL
