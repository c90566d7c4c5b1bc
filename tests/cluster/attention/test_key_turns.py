"""Keys turned within the ring stand where keys would that were rotated afresh for every tile."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from frieze.cluster.attention import Context, KeyTurns, canvas_attention, turned_attention
from frieze.cluster.comm import Comm, axis_comms, run_threads
from frieze.cluster.layout import Band, Mesh, TokenGrid
from frieze.renderer.extrapolation.key_positions import rectified
from frieze.renderer.models.positions import RotaryAxis, trained
from tolerances import AMPLE, CONTROL, EXACT_FLOAT64

FRAMES, ROWS, COLUMNS, HEADS, NUM_TEXT = 2, 9, 7, 4, 3
# Of a head's 12 channels; the model knows 4 x 5 tokens.
AXES = (
    RotaryAxis("frame", 4, 100.0, FRAMES, FRAMES),
    RotaryAxis("row", 4, 100.0, 4, ROWS),
    RotaryAxis("column", 4, 100.0, 5, COLUMNS),
)
BANDS = {
    1: (Band(0, 9),),
    2: (Band(0, 2), Band(2, 9)),
    3: (Band(0, 4), Band(4, 5), Band(5, 9)),
    4: (Band(0, 1), Band(1, 4), Band(4, 6), Band(6, 9)),
}
MESHES = (Mesh(), Mesh(ring=2), Mesh(ring=3), Mesh(ulysses=2), Mesh(ring=2, ulysses=2))


def turns() -> KeyTurns:
    made = rectified({"row": 4, "column": 5}, 0.5, 0.25)(AXES)
    assert made is not None
    return made


def rotated(x: Tensor, places: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Tokens [.., S, D] at frames, rows and columns, as rotary networks rotate them."""
    angles = [trained(axis, place, 1.0) for axis, place in zip(AXES, places, strict=True)]
    turn = torch.polar(torch.ones(()).double(), torch.cat(angles, dim=1))
    return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turn).flatten(-2)


def raster(rows: range) -> tuple[Tensor, Tensor, Tensor]:
    """Frames, rows and columns of a band's tokens, frame by frame."""
    grid = torch.meshgrid(
        torch.arange(FRAMES), torch.tensor(rows), torch.arange(COLUMNS), indexing="ij"
    )
    frame_S, row_S, column_S = (numbers.flatten() for numbers in grid)
    return frame_S, row_S, column_S


def noise(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, HEADS, *shape, 12, generator=generator, dtype=torch.float64)


def whole() -> tuple[list[Tensor], list[Tensor]]:
    """q, k, v of the canvas, not rotated yet, and of the text."""
    size = FRAMES * ROWS * COLUMNS
    return [noise(size, seed=i) for i in range(3)], [noise(NUM_TEXT, seed=5 + i) for i in range(3)]


def defined() -> Tensor:
    """The image's answers by the definition: keys rotated afresh for every tile."""
    (q, k, v), (_, k_text, v_text) = whole()
    frame_S, row_S, column_S = places = raster(range(ROWS))
    q, out, made = rotated(q, places), torch.zeros_like(q), turns()
    omega = trained(AXES[1], torch.ones(1), 1.0)[0]
    for i, rows in enumerate(made.rows):
        for j, columns in enumerate(made.columns):
            # The lowest angle over the frequency of 1 is by how many tokens a key is moved.
            row_R = torch.arange(ROWS) + (made.row_angles[i, :, 2] / omega[0]).round()
            column_C = torch.arange(COLUMNS) + (made.column_angles[j, :, 4] / omega[0]).round()
            keys = rotated(k, (frame_S, row_R[row_S], column_C[column_S]))
            inside = torch.isin(row_S, torch.tensor(rows)) & torch.isin(
                column_S, torch.tensor(columns)
            )
            joined = torch.cat((keys, k_text), 2), torch.cat((v, v_text), 2)
            out[:, :, inside] = F.scaled_dot_product_attention(q[:, :, inside], *joined, scale=0.3)
    return out


def on_ranks(mesh: Mesh, *, is_turned: bool = True) -> Tensor:
    """The image's answers on bands, each rank's tokens with the text before them."""
    image, text = whole()
    bands = BANDS[mesh.world_size]
    grid, context = TokenGrid(FRAMES, bands, COLUMNS), Context(NUM_TEXT)
    _, row_S, _ = raster(range(ROWS))

    def rank(comm: Comm) -> Tensor:
        band = bands[comm.rank]
        own = (row_S >= band.start) & (row_S < band.stop)
        q, k, v = (x[:, :, own] for x in image)
        places = raster(range(band.start, band.stop))
        joined = [
            context.join(t, x)
            for t, x in zip(text, (rotated(q, places), rotated(k, places), v), strict=True)
        ]
        comms = axis_comms(comm, mesh)
        if is_turned:
            asked = turned_attention(
                *joined, comms=comms, grid=grid, turns=turns(), scale=0.3, context=context
            )
        else:
            tokens = [FRAMES * each.rows * COLUMNS for each in bands]
            asked = canvas_attention(
                *joined, comms=comms, tokens=tokens, scale=0.3, context=context
            )
        return context.split(asked)[1]

    out = torch.zeros_like(image[0])
    for band, rows in zip(bands, run_threads(rank, len(bands), timeout=AMPLE), strict=True):
        out[:, :, (row_S >= band.start) & (row_S < band.stop)] = rows
    return out


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_turned_keys_are_those_rotated_afresh_on_any_bands(mesh: Mesh) -> None:
    expected = defined()
    assert float((on_ranks(mesh) - expected).abs().max()) <= EXACT_FLOAT64
    assert float((on_ranks(mesh, is_turned=False) - expected).abs().max()) > CONTROL
