"""Windows and the canvas in fusion are the same on any bands, and cost what they say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from frieze.cluster.attention import (
    AttentionShape,
    Context,
    ScaleFusion,
    Windows,
    fused_features,
    gaussian_kernel,
    low_pass,
    shaped_attention,
)
from frieze.cluster.comm import Comm, axis_comms, run_threads, solo
from frieze.cluster.layout import Band, LayoutError, Mesh, TokenGrid
from tolerances import AMPLE, CONTROL, EXACT_FLOAT64

HEIGHT, WIDTH, HEADS, HEAD_DIM = 12, 8, 4, 4
BANDS = {
    1: (Band(0, 12),),
    2: (Band(0, 3), Band(3, 12)),
    3: (Band(0, 5), Band(5, 6), Band(6, 12)),
    4: (Band(0, 1), Band(1, 6), Band(6, 8), Band(8, 12)),
}
LOCAL = Windows.product(
    [range(-1, 5), range(2, 8), range(7, 13)], [range(4), range(1, 5), range(4, 8)]
)
GRIDS = Windows.product([range(i, 12, 2) for i in range(2)], [range(i, 8, 2) for i in range(2)])
SHAPES = {
    "windows": AttentionShape(LOCAL),
    "hw": AttentionShape(LOCAL, ScaleFusion(3, axes="hw")),
    "hwc": AttentionShape(LOCAL, ScaleFusion(7, axes="hwc")),
    "wc": AttentionShape(LOCAL, ScaleFusion(3, 0.7, axes="wc")),
    "fast": AttentionShape(LOCAL, ScaleFusion(5, axes="hw", coarse=GRIDS)),
    "resized": AttentionShape(
        Windows.product([range(7), range(7, 14)], [range(5), range(5, 10)]), grid=(14, 10)
    ),
}


def noise(*shape: int, seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def blurred(x: Tensor, fusion: ScaleFusion, dims: tuple[int, ...]) -> Tensor:
    """The definition: a product with a Gaussian matrix along each dim."""
    for dim in dims:
        size = x.shape[dim]
        distance = torch.arange(size)[:, None] - torch.arange(size)
        weights = torch.exp(-(distance.double() ** 2) / (2 * fusion.sigma**2))
        weights[distance.abs() > fusion.size // 2] = 0
        steps = torch.arange(fusion.size) - fusion.size // 2
        weights /= torch.exp(-(steps.double() ** 2) / (2 * fusion.sigma**2)).sum()
        x = torch.tensordot(weights, x, dims=([1], [dim])).movedim(0, dim)
    return x


@pytest.mark.parametrize("axes", ["hw", "wc"])
@pytest.mark.parametrize("size", [1, 3, 7, 15])
def test_the_low_pass_of_bands_is_that_of_the_canvas(axes: Any, size: int) -> None:
    """Also where the Gaussian is wider than a band and its neighbours together."""
    x, fusion = noise(2, 3, HEIGHT, WIDTH, HEAD_DIM), ScaleFusion(size, axes=axes)
    expected = blurred(x, fusion, (-3, -2) if axes == "hw" else (-2,))
    for bands in BANDS.values():
        parts = run_threads(
            lambda comm, bands=bands: low_pass(
                x[:, :, bands[comm.rank].start : bands[comm.rank].stop], comm, bands, fusion
            ),
            len(bands),
            timeout=AMPLE,
        )
        assert float((torch.cat(parts, 2) - expected).abs().max()) <= EXACT_FLOAT64
    if size > 1 and axes == "hw":  # control: a band alone ends in zeros
        alone = low_pass(x[:, :, :5], solo(), (Band(0, 5),), fusion)
        assert float((alone - expected[:, :, :5]).abs().max()) > CONTROL


def layer(x: Tensor, attend: Any, context: Context | None, fusion: ScaleFusion | None) -> Tensor:
    """Projections with biases, attention, a projection back: what a model does. x [1, S, 16]."""
    weights = noise(4, 16, 16, seed=11) / 4
    bias = noise(4, 16, seed=12) / 4
    q, k, v = (
        F.linear(x, weights[i], bias[i]).unflatten(-1, (HEADS, HEAD_DIM)).transpose(1, 2)
        for i in range(3)
    )
    out = F.linear(attend(q, k, v, context).transpose(1, 2).flatten(2), weights[3], bias[3])
    return out if fusion is None or "c" not in fusion.axes else fused_features(out, fusion)


def on_ranks(
    shape: AttentionShape, num_frames: int, num_text: int, mesh: Mesh, bands: tuple[Band, ...]
) -> Tensor:
    """The layer's output on the canvas [frames, H, W, 16], then of the text."""
    image = noise(num_frames, HEIGHT, WIDTH, 16, seed=1)
    text = noise(num_text, 16, seed=2)
    context = Context(num_text, "front") if num_text else None

    def rank(comm: Comm) -> tuple[Tensor, Tensor]:
        band = bands[comm.rank]
        x = torch.cat((text, image[:, band.start : band.stop].flatten(0, 2)))[None]

        def attend(q: Tensor, k: Tensor, v: Tensor, context: Context | None) -> Tensor:
            return shaped_attention(
                *(q, k, v),
                comms=axis_comms(comm, mesh),
                grid=TokenGrid(num_frames, bands, WIDTH),
                shape=shape,
                context=context,
            )

        out = layer(x, attend, context, shape.fusion)[0]
        return out[:num_text], out[num_text:].unflatten(0, (num_frames, band.rows, WIDTH))

    outs = run_threads(rank, len(bands), timeout=AMPLE)
    assert all(torch.equal(outs[0][0], other) for other, _ in outs)
    return torch.cat([outs[0][0].flatten(), torch.cat([out for _, out in outs], 1).flatten()])


@pytest.mark.parametrize("name", SHAPES)
def test_any_bands_and_meshes_answer_as_one_rank(name: str) -> None:
    """One frame and three, with text and without; the layer's projection has a bias."""
    for num_frames, num_text in ((1, 0), (3, 5)):
        one = on_ranks(SHAPES[name], num_frames, num_text, Mesh(), BANDS[1])
        for mesh in (Mesh(ring=2), Mesh(ring=3), Mesh(ulysses=2), Mesh(ring=2, ulysses=2)):
            got = on_ranks(SHAPES[name], num_frames, num_text, mesh, BANDS[mesh.world_size])
            assert float((got - one).abs().max()) <= EXACT_FLOAT64, mesh
        for other in SHAPES.values():
            if other is not SHAPES[name]:  # control: no two of them are the same
                differing = on_ranks(other, num_frames, num_text, Mesh(), BANDS[1])
                assert float((differing - one).abs().max()) > CONTROL


@pytest.mark.parametrize("name", ["hw", "hwc", "wc", "fast"])
def test_one_rank_answers_as_the_definition_does(name: str) -> None:
    """l and g of the layer, projected first and fused after, with the Gaussian as a matrix."""
    fusion = SHAPES[name].fusion
    assert fusion is not None
    local = on_ranks(AttentionShape(LOCAL), 1, 0, Mesh(), BANDS[1]).view(HEIGHT, WIDTH, 16)
    everything = Windows.product([range(HEIGHT)], [range(WIDTH)])
    whole = on_ranks(AttentionShape(fusion.coarse or everything), 1, 0, Mesh(), BANDS[1]).view(
        HEIGHT, WIDTH, 16
    )
    dims = tuple("hwc".index(axis) - 3 for axis in fusion.axes)
    expected = whole + blurred(local - whole, fusion, dims)
    got = on_ranks(SHAPES[name], 1, 0, Mesh(), BANDS[1]).view(HEIGHT, WIDTH, 16)
    assert float((got - expected).abs().max()) <= EXACT_FLOAT64


def test_a_gaussian_must_have_a_middle() -> None:
    for size, sigma in ((2, 1.0), (0, 1.0), (3, 0.0)):
        with pytest.raises(LayoutError, match="the size must be odd"):
            ScaleFusion(size, sigma)
    assert float(gaussian_kernel(7, 1.0).sum()) == pytest.approx(1)
