"""Maps are grown and shrunk on bands as on the whole canvas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from frieze.cluster.layout import Band
from support.banded import BANDS, canvas, error, on_bands, refused
from tolerances import CONTROL, EXACT_FLOAT64

ROW_AT_A_TIME = (Band(0, 1), Band(1, 2), Band(2, 24))
MODES = ("nearest", "nearest-exact", "bilinear", "bicubic")


@pytest.mark.parametrize("mode", MODES)
def test_whole_factors_and_sizes_are_exact(mode: str) -> None:
    """Also on bands of one row, which need rows from beyond their neighbours."""
    x = canvas(2, 3)
    for bands in (BANDS, ROW_AT_A_TIME, (Band(0, 24),)):
        for factor in (2, 3, 2.0, (2, 3)):
            assert (
                error(
                    lambda x, f=factor: F.interpolate(x, scale_factor=f, mode=mode), x, bands=bands
                )
                <= EXACT_FLOAT64
            )
        assert error(lambda x: enlarged(x, mode), x, bands=bands) <= EXACT_FLOAT64
    for factor in (0.5, 0.25, 1.5):
        assert (
            error(lambda x, f=factor: F.interpolate(x, scale_factor=f, mode=mode), x)
            <= EXACT_FLOAT64
        )


def enlarged(x: Tensor, mode: str) -> Tensor:
    return F.interpolate(x, size=(4 * x.shape[-2], 17), mode=mode)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_control_a_band_alone_blends_no_rows_of_others(mode: str) -> None:
    x = canvas(2, 3)
    alone = [enlarged(x[..., b.start : b.stop, :], mode) for b in BANDS]
    assert float((torch.cat(alone, -2) - enlarged(x, mode)).abs().max()) > CONTROL
    assert len(on_bands(lambda x: enlarged(x, mode), x)) == len(BANDS)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"scale_factor": 2, "align_corners": True}, "align_corners=True"),
        ({"scale_factor": 2, "antialias": True}, "antialias=True"),
        ({"scale_factor": 1.3}, "cut the canvas at multiples"),
        ({"scale_factor": 1 / 16}, "cut the canvas at multiples of 16"),
    ],
)
def test_what_rows_of_neighbours_cannot_make_is_refused(
    options: dict[str, Any], match: str
) -> None:
    refused(lambda x: F.interpolate(x, mode="bicubic", **options), canvas(2, 3), match=match)
