"""Inside `BandMode` torch functions mean what they mean on the whole canvas."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frieze.cluster.bands import BandError, BandMode, band_mode
from frieze.cluster.comm import run_threads, solo
from frieze.cluster.layout import Band, Canvas, cut
from frieze.cluster.strategies.bands import predict
from support.banded import (
    WIDTH,
    Attention,
    canvas,
    error,
    marked,
    on_bands,
    refused,
    rows_of,
)
from tolerances import AMPLE, EXACT_FLOAT64


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, padding="same"),
        nn.Conv2d(4, 6, (4, 4), padding="same"),
        nn.Conv2d(4, 6, (3, 2), padding="same", dilation=(2, 3)),
        nn.Conv2d(4, 6, 1, padding="valid"),
        nn.Conv2d(4, 6, (1, 3), padding=(0, 1), padding_mode="circular"),
        nn.Conv2d(4, 6, 2, stride=2),
        nn.ConvTranspose2d(4, 6, 2, stride=2),
        nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(4, 6, 3, stride=2)),
        nn.Upsample(scale_factor=2.0),
        nn.Upsample(scale_factor=(1.5, 2.0), mode="nearest-exact"),
        nn.Upsample(scale_factor=0.5),
        nn.MaxPool2d(2),
        nn.AvgPool2d(4, 4),
        nn.PixelUnshuffle(2),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4, track_running_stats=True).eval(),
        nn.BatchNorm2d(4).eval(),
        nn.LayerNorm(WIDTH),
        nn.Softmax(dim=1),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_layers_match_the_whole_canvas(layer: nn.Module) -> None:
    assert error(layer.double(), canvas(1, 4)) <= EXACT_FLOAT64


def test_tensors_may_be_keyword_arguments() -> None:
    weight = torch.randn(3, 4, 3, 3, dtype=torch.float64)
    x = canvas(1, 4)
    assert error(lambda x: F.conv2d(input=x, weight=weight, padding=1), x) <= EXACT_FLOAT64
    assert error(lambda x: F.group_norm(input=x, num_groups=2), x) <= EXACT_FLOAT64
    refused(lambda x: torch.mean(input=x, dim=2), x, "mean")


def test_operators_mean_the_same_as_functions() -> None:
    weight = torch.randn(3, 4, 3, 3, dtype=torch.float64)

    def function(x: Tensor) -> Tensor:
        return torch.ops.aten.conv2d(torch.constant_pad_nd(x, (1, 1, 1, 1)), weight)

    assert error(function, canvas(1, 4)) <= EXACT_FLOAT64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_dtypes_and_inference_mode(dtype: torch.dtype) -> None:
    layer = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.GroupNorm(2, 4)).to(dtype)
    x = canvas(1, 4).to(dtype)
    with torch.inference_mode():
        parts, whole = on_bands(layer, x), layer(x)
    assert all(part.dtype == dtype for part in parts)
    assert (torch.cat(parts, -2) - whole).abs().max() <= 8 * torch.finfo(dtype).eps


def test_group_norm_of_tokens_and_of_plain_vectors() -> None:
    tokens = canvas(2, 4).flatten(2)
    parts = on_bands(lambda x: F.group_norm(x.flatten(2), 2), canvas(2, 4))
    assert (torch.cat(parts, -1) - F.group_norm(tokens, 2)).abs().max() <= EXACT_FLOAT64
    vector = torch.randn(2, 4)
    for part in on_bands(lambda x: F.group_norm(vector, 2), canvas(1, 1)):
        assert torch.equal(part, F.group_norm(vector, 2))


def test_group_norm_keeps_its_digits_beside_a_large_mean() -> None:
    ramp = 1e6 * torch.arange(24, dtype=torch.float64)[:, None]
    assert error(lambda x: F.group_norm(x, 2), canvas(1, 4) + ramp) <= EXACT_FLOAT64


def test_a_canvas_of_another_height_is_refused() -> None:
    with pytest.raises(BandError, match="bands of 4 rows on a canvas of 8"):
        BandMode(solo(), (Band(0, 4),), canvas=Canvas(1, 8, 4))


@pytest.mark.parametrize(
    "bands", [(), (Band(0, 4),), (Band(0, 4), Band(5, 8)), (Band(1, 4), Band(4, 8))]
)
def test_bands_that_do_not_stack_are_refused(bands: tuple[Band, ...]) -> None:
    with pytest.raises(BandError, match="2 ranks need 2 bands"):
        run_threads(lambda comm: BandMode(comm, bands), 2)


def test_errors_inside_pass_through_the_guard() -> None:
    model, marks = marked(Attention("raises"), Attention())
    with pytest.raises(KeyError, match="the layer's own"):
        on_bands(model, canvas(1, 4), marks=marks)


def test_a_failed_layer_leaves_nothing_behind() -> None:
    model, marks = marked(Attention("raises"))

    def function(x: Tensor) -> Tensor:
        with pytest.raises(KeyError):
            model(x)
        model.blocks[0].way = "once"
        return model(x)

    comm = solo()
    x = canvas(1, 4)
    mode = BandMode(comm, (Band(0, 24),), marks=marks)
    with mode:
        out = function(x)
    assert (out - model(x)).abs().max() <= EXACT_FLOAT64
    with pytest.raises(BandError, match="not marked"), mode:
        Attention()(x.flatten(2).mT)
    with mode:
        model(x)


def test_a_layer_may_run_while_another_error_is_handled() -> None:
    model, marks = marked(Attention())
    with BandMode(solo(), (Band(0, 24),), marks=marks):
        try:
            raise ValueError("outside")
        except ValueError:
            model(canvas(1, 4))


def test_the_mode_is_per_thread() -> None:
    x = canvas(1, 4)
    inside, outside = threading.Event(), threading.Event()
    seen: list[Tensor] = []

    def elsewhere() -> None:
        inside.wait(AMPLE)
        with torch.no_grad():
            seen.append(x.mean())
        outside.set()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    with BandMode(solo(), (Band(0, 24),), canvas=Canvas(1, 24, WIDTH)):
        inside.set()
        assert outside.wait(AMPLE)
        with pytest.raises(BandError):
            x.mean()
    thread.join()
    assert torch.equal(seen[0], x.mean())


def test_modes_do_not_nest() -> None:
    with BandMode(solo(), (Band(0, 4),)):
        with pytest.raises(BandError, match="already"), BandMode(solo(), (Band(0, 4),)):
            pass
        torch.ones(1)
    torch.ones(1).mean()


def test_one_rank_needs_no_mode_unless_asked() -> None:
    assert isinstance(band_mode(solo(), (Band(0, 4),)), nullcontext)
    assert isinstance(band_mode(solo(), (Band(0, 4),), always=True), BandMode)


def test_predict_draws_the_rows_of_every_rank() -> None:
    model, marks = marked(Attention())
    conv = nn.Conv2d(4, 4, 3, padding=1).double()
    x = canvas(1, 4)
    bands = cut(24, 3, align=4)
    assert [band.rows for band in bands] == [8, 8, 8]

    def denoised(x: Tensor, sigma: float) -> Tensor:
        return model(conv(x)) * sigma

    for given_bands in (bands, None):
        parts = run_threads(
            lambda comm, known: predict(
                denoised, rows_of(x, bands[comm.rank]), 0.5, comm, bands=known, marks=marks
            ),
            3,
            given_bands,
        )
        assert (torch.cat(parts, -2) - denoised(x, 0.5)).abs().max() <= EXACT_FLOAT64
