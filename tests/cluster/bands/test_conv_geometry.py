"""Strides, dilations and pools of a step: the authors' U-Nets, on any bands, no module changed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frieze.cluster.bands import (
    BandError,
    ConvGeometry,
    ConvShape,
    band_mode,
    conv_shape,
    hook_convolutions,
)
from frieze.cluster.comm import Comm, run_threads
from frieze.cluster.layout import Band, Canvas
from frieze.renderer.extrapolation.convolutions import (
    dilated,
    raunet,
    raunet_schedule,
)
from support.unets import cuts, unet
from support.vectors import EXACT, difference, noise, vectors
from tolerances import AMPLE, CONTROL, EXACT_FLOAT64


def drawn(kind: str, vector: dict[str, Any], shape: ConvShape, bands: tuple[Band, ...]) -> Tensor:
    network, marks = unet(kind)
    x = noise((1, 4, *vector["latent"]), vector["seed"])
    text = noise((1, 5, 8), vector["seed"] + 1)
    canvas = Canvas(1, *vector["latent"])

    def rank(comm: Comm) -> Tensor:
        band = bands[comm.rank]
        with (
            torch.no_grad(),
            band_mode(comm, bands, marks=marks, canvas=canvas),
            conv_shape(shape),
        ):
            out: Tensor = network(x[:, :, band.start : band.stop], 500.0, text).sample
            return out

    return torch.cat(run_threads(rank, len(bands), timeout=AMPLE), 2)


@pytest.mark.parametrize("vector", vectors("conv"))
def test_single_convolutions_are_the_authors(vector: dict[str, Any]) -> None:
    """Odd sizes too, where one rank has them; what is asked of the layer is not its own."""
    network = nn.Sequential(nn.Conv2d(3, 2, 3, stride=vector["stride"], padding=1).double())
    with torch.no_grad():
        network[0].weight.copy_(noise((2, 3, 3, 3), vector["seed"] + 1) / 27**0.5)
        network[0].bias.copy_(0.1 * noise((2,), vector["seed"] + 2))
    hook_convolutions(network, ["0"], [])
    x = noise(tuple(vector["input"]), vector["seed"])
    shape = ConvShape({"0": ConvGeometry(vector["stride"], vector["dilation"])})
    own = (network[0].stride, network[0].dilation, network[0].padding)

    def made(bands: tuple[Band, ...], shape: ConvShape) -> Tensor:
        def rank(comm: Comm) -> Tensor:
            band, canvas = bands[comm.rank], Canvas(1, *vector["input"][2:])
            with torch.no_grad(), band_mode(comm, bands, canvas=canvas), conv_shape(shape):
                out: Tensor = network(x[:, :, band.start : band.stop])
                return out

        return torch.cat(run_threads(rank, len(bands), timeout=AMPLE), 2)

    rows, unit = vector["input"][2], vector["stride"]
    for bands in cuts(rows, unit):
        assert difference(made(bands, shape), vector["output"]) <= EXACT, bands
    if rows % unit:
        with pytest.raises(BandError, match=f"cut the canvas at multiples of {unit}"):
            made((Band(0, unit), Band(unit, rows)), shape)
    plain = made((Band(0, rows),), ConvShape())
    assert difference(plain, vector["output"]) > CONTROL
    assert (network[0].stride, network[0].dilation, network[0].padding) == own


@pytest.mark.parametrize("vector", vectors("dilation"))
def test_dilated_unets_are_freescales(vector: dict[str, Any]) -> None:
    shape = dilated(vector["dilation"])
    assert list(shape.convs) == vector["layers"]
    unit = 4 * vector["dilation"]
    for bands in cuts(vector["latent"][0], unit):
        assert difference(drawn("sdxl", vector, shape, bands), vector["output"]) <= EXACT, bands
    if vector["dilation"] > 1:
        plain = drawn("sdxl", vector, ConvShape(), bands)
        assert difference(plain, vector["output"]) > CONTROL


def measured(
    vector: dict[str, Any], shape: ConvShape, bands: tuple[Band, ...]
) -> tuple[Tensor, dict[str, list[int]]]:
    """What is drawn, and [rows, columns] of what layers give, all bands' rows together."""
    network, _ = unet(vector["model"])
    found: dict[str, list[int]] = {name: [0, 0] for name in vector["sizes"]}

    def keep(name: str, output: Tensor) -> None:
        found[name][0] += output.shape[-2]
        found[name][1] = output.shape[-1]

    hooks = [
        network.get_submodule(name).register_forward_hook(
            lambda layer, args, output, name=name: keep(name, output)
        )
        for name in found
    ]
    out = drawn(vector["model"], vector, shape, bands)
    for hook in hooks:
        hook.remove()
    return out, found


# Larger sizes of Stable Diffusion, and late steps, take the ways that smaller and early ones take.
@pytest.mark.parametrize(
    "vector",
    [
        pytest.param(vector, marks=pytest.mark.slow if index in (1, 2, 7) else [])
        for index, vector in enumerate(vectors("raunet"))
    ],
)
def test_raunets_are_hidiffusions(vector: dict[str, Any]) -> None:
    kind = vector["model"]
    schedule = raunet_schedule(kind, tuple(vector["thresholds_of"]), vector["num_steps"])
    shape = raunet(kind, schedule, vector["step"])
    unit = 32 if shape.convs and shape.pools else 16
    for bands in cuts(vector["latent"][0], unit):
        found, sizes = measured(vector, shape, bands)
        assert difference(found, vector["output"]) <= EXACT, bands
        assert sizes == vector["sizes"]
    if shape.convs or shape.pools:
        plain = drawn(kind, vector, ConvShape(), (Band(0, vector["latent"][0]),))
        assert difference(plain, vector["output"]) > CONTROL


def test_threads_may_be_at_different_steps() -> None:
    """Each rank of threads draws a picture of its own, one dilated and one not."""
    vector = vectors("dilation")[0]
    x, text = noise((1, 4, 32, 32), 1), noise((1, 5, 8), 2)
    network, _ = unet("sdxl")
    shapes = [dilated(2), None, dilated(1)]

    def rank(comm: Comm) -> Tensor:
        with torch.no_grad(), conv_shape(shapes[comm.rank]):
            out: Tensor = network(x, 500.0, text).sample
            return out

    assert vector["dilation"] == 1
    dilated_2, plain, dilated_1 = run_threads(rank, 3, timeout=AMPLE)
    assert float((plain - dilated_1).abs().max()) <= EXACT_FLOAT64
    assert float((plain - dilated_2).abs().max()) > CONTROL


def test_a_layer_that_fails_leaves_no_geometry_behind() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1))
    hook_convolutions(network, ["0"], [])
    with conv_shape(ConvShape({"0": ConvGeometry(2, 2)})):
        with pytest.raises(RuntimeError):
            network(torch.zeros(1, 5, 8, 8))
        assert F.conv2d(torch.zeros(1, 3, 8, 8), torch.zeros(2, 3, 3, 3)).shape == (1, 2, 6, 6)
        assert network(torch.zeros(1, 3, 8, 8)).shape == (1, 2, 4, 4)


def test_a_kernel_of_one_keeps_its_geometry() -> None:
    """A LoRA kept beside its layer: down with the layer's kernel, up with a kernel of 1."""

    class Kept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = nn.Conv2d(3, 4, 3, padding=1, bias=False).double()
            self.down = nn.Conv2d(3, 2, 3, padding=1, bias=False).double()
            self.up = nn.Conv2d(2, 4, 1, bias=False).double()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.base(x) + self.up(self.down(x))
            return out

    network = nn.Sequential(Kept())
    hook_convolutions(network, ["0"], [])
    x = noise((1, 3, 16, 16), 5)
    layer = network[0]
    with torch.no_grad(), conv_shape(ConvShape({"0": ConvGeometry(4, 2)})):
        got = network(x)
        weight = layer.base.weight + torch.einsum(
            "or,rikl->oikl", layer.up.weight[:, :, 0, 0], layer.down.weight
        )
        expected = F.conv2d(x, weight, None, 4, 2, 2)
    assert float((got - expected).abs().max()) <= EXACT_FLOAT64
