"""Positions that are added to tokens, and their continuation beyond the table.

Shape suffixes: N rows or columns of the table, E features.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from frieze.cluster.layout import Band, Canvas
from frieze.renderer import ModelError
from frieze.renderer.models.family import BandPlace
from frieze.renderer.models.positions import trained
from frieze.renderer.models.sine_positions import SineTable, fitted
from tolerances import CASTS_TO_FLOAT32, CONTROL, EXACT_FLOAT64

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
FEATURES = 32


def diffusers_table(size: int, base: float, start: float = 0.0) -> Tensor:
    """diffusers' sines at start + i * base / size, float64 [N, N, E]."""
    from diffusers.models.embeddings import get_2d_sincos_pos_embed_from_grid

    coordinates = torch.arange(size, dtype=torch.float64) * base / size + start
    grid = torch.stack(torch.meshgrid(coordinates, coordinates, indexing="xy"))
    table: Tensor = get_2d_sincos_pos_embed_from_grid(FEATURES, grid, output_type="pt")
    return table.reshape(size, size, FEATURES)


def embed(table_NNE: Tensor) -> Any:
    from diffusers.models.embeddings import PatchEmbed

    size = len(table_NNE)
    patches: Any = PatchEmbed(16, 16, 2, 4, FEATURES, pos_embed_max_size=size)
    patches.pos_embed = table_NNE.flatten(0, 1).unsqueeze(0)
    return patches


def of(table: SineTable, canvas: Canvas, *bands: Band) -> Tensor:
    return torch.cat([table.of(BandPlace(band, canvas, trained)) for band in bands])


@pytest.mark.parametrize(("height", "width"), [(24, 24), (14, 10), (7, 24), (1, 3)])
def test_within_the_table_it_is_the_stock_crop(height: int, width: int) -> None:
    patches = embed(diffusers_table(24, 8))
    canvas = Canvas(1, 2 * height, 2 * width)
    known = patches.cropped_pos_embed(canvas.height, canvas.width)[0]
    bands = [Band(2 * i, 2 * i + 2) for i in range(height)]
    assert torch.equal(of(SineTable(patches), canvas, *bands), known)


@pytest.mark.parametrize(("height", "width"), [(40, 8), (8, 41), (33, 60)])
@pytest.mark.parametrize("start", [0.0, -16.0, 21.3])
def test_beyond_the_table_it_is_a_larger_one(start: float, height: int, width: int) -> None:
    """Cut out of the middle of a table of 64, the small one continues to the large one."""
    step = 1 / 3
    large = embed(diffusers_table(64, 64 * step, start - 20 * step))
    small = SineTable(embed(diffusers_table(24, 24 * step, start)))
    canvas = Canvas(1, 2 * height, 2 * width)
    bands = (Band(0, 6), Band(6, canvas.height))
    known = large.cropped_pos_embed(canvas.height, canvas.width)[0]
    assert float((of(small, canvas, *bands) - known).abs().max()) <= EXACT_FLOAT64
    shifted = Canvas(1, 2 * height + 4, 2 * width)
    moved = of(small, shifted, Band(0, canvas.height))
    assert float((moved - known).abs().max()) > CONTROL


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, CASTS_TO_FLOAT32), (torch.float16, 1e-4), (torch.bfloat16, 1e-3)],
)
def test_the_formula_is_read_off_tables_of_any_precision(
    dtype: torch.dtype, tolerance: float
) -> None:
    """The paper's coordinates of 192 patches around 64 trained ones, and diffusers' own."""
    for size, base, start in ((192, 48.0, -16.0), (96, 64.0, 0.0), (24, 8.0, 0.0)):
        found = fitted(diffusers_table(size, base, start).to(dtype))
        assert found == pytest.approx((start, base / size), abs=tolerance)


def test_learnt_positions_are_refused_beyond_their_table() -> None:
    learnt = torch.randn(8, 8, FEATURES, generator=torch.Generator().manual_seed(3))
    table = SineTable(embed(learnt))
    assert of(table, Canvas(1, 16, 16), Band(0, 16)).shape == (64, FEATURES)
    with pytest.raises(ModelError, match="after 8 patches of 2 latent cells"):
        of(table, Canvas(1, 18, 16), Band(0, 18))


def test_without_weights_only_shapes_are_known() -> None:
    table = SineTable(embed(torch.empty(8, 8, FEATURES, device="meta")))
    positions = of(table, Canvas(1, 20, 16), Band(0, 6))
    assert positions.is_meta
    assert positions.shape == (3 * 8, FEATURES)


def test_drawn_together_a_canvas_stays_where_the_model_was_trained() -> None:
    """Twice the trained side at half the step: every other token lies where a trained one did."""
    table = SineTable(embed(diffusers_table(64, 64 / 3)))
    canvas, side = Canvas(1, 32, 32), 8

    def drawn(shrink: Any, *bands: Band) -> Tensor:
        places = (BandPlace(band, canvas, trained, shrink) for band in bands)
        return torch.cat([table.of(place, side) for place in places]).unflatten(0, (-1, 16))

    whole = (Band(0, 32),)
    halved_HWE = drawn(lambda known, length: length / known, *whole)
    start, step = table.grid
    rows = torch.tensor([31.5 + (i - 31.5) / 2 for i in range(24, 40)], dtype=torch.float64)
    coordinates = rows * step + start
    assert torch.equal(halved_HWE[:, 0, FEATURES // 2].argsort(), coordinates.sin().argsort())
    assert float((halved_HWE[:, 0, FEATURES // 2] - coordinates.sin()).abs().max()) < 1e-12
    in_bands = drawn(lambda known, length: length / known, Band(0, 6), Band(6, 32))
    assert torch.equal(in_bands, halved_HWE)
    assert torch.equal(drawn(None, *whole), drawn(lambda known, length: 1.0, *whole))
    assert float((drawn(None, *whole) - halved_HWE).abs().max()) > CONTROL
