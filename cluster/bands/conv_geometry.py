"""Gives a U-Net's convolutions another geometry for a step, and leaves its modules as they are.

Hooks note which layer runs; while one does that the step's `ConvShape` names, `conv2d` takes its
geometry.  Bands borrow by the geometry of the call, so it holds on any of them.  Nothing is written
to a module: ranks that are threads may be at different steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..thread_value import ThreadValue
from .hook_sites import HookSites

Size = tuple[int, int]


@dataclass(frozen=True)
class ConvGeometry:
    """Stride and dilation of a convolution in rows and columns; a kernel of 3 is padded to fit."""

    stride: int = 1
    dilation: int = 1


@dataclass(frozen=True)
class BlockPool:
    """The map is halved by averages behind layer `after`, and grown back behind layer `until`."""

    after: str
    until: str


@dataclass(frozen=True)
class ConvShape:
    """What one step changes of a network: convolutions by the layers' names, and pools."""

    convs: Mapping[str, ConvGeometry] = field(default_factory=dict)
    pools: tuple[BlockPool, ...] = ()

    @property
    def reduction(self) -> int:
        """How many times farther than the network's own its coarsest stride is.

        Samplers have a stride of 2 by themselves, and a pool halves what is behind it.
        """
        farther = (max(1, geometry.stride // 2) for geometry in self.convs.values())
        return math.prod(farther) * 2 ** len(self.pools)


@dataclass
class _Step:
    """A step that is running on this thread: its shape, and what layers left for others."""

    shape: ConvShape
    modes: list[TorchFunctionMode | None] = field(default_factory=list)
    sizes: dict[str, Size] = field(default_factory=dict)


_step: ThreadValue[_Step] = ThreadValue("convolutions")
_sites = HookSites()  # layers' names, pairs of samplers, and pools


def conv_shape(shape: ConvShape | None) -> AbstractContextManager[None]:
    """Inside, on this thread, prepared networks have this shape; None leaves them plain."""
    return _step.set(None if shape is None else _Step(shape))


def current_shape() -> ConvShape:
    """The shape that networks of this thread have now."""
    step = _step.get()
    return ConvShape() if step is None else step.shape


def hook_convolutions(network: nn.Module, convs: Sequence[str], pools: Sequence[BlockPool]) -> None:
    """Hooks for the layers that a shape may name, and for the samplers that then change sizes.

    Each is hooked once, however often it is asked for; outside `conv_shape` the hooks do nothing.
    An upsampler grows its map to the size that the downsampler of its level was given, whatever
    the stride.  AttributeError names a layer that the network lacks.
    """
    _sites.hook(network, {name: partial(_hook_conv, network, name) for name in convs})
    pairs = _samplers(network)
    _sites.hook(network, {pair: partial(_hook_samplers, network, *pair) for pair in pairs})
    _sites.hook(network, {pool: partial(_hook_pool, network, pool) for pool in pools})


def _hook_conv(network: nn.Module, name: str) -> None:
    layer = network.get_submodule(name)
    layer.register_forward_pre_hook(partial(_enter, name))
    layer.register_forward_hook(_leave, always_call=True)


def _hook_samplers(network: nn.Module, down: str, up: str) -> None:
    network.get_submodule(down).register_forward_pre_hook(partial(_keep_size, down))
    network.get_submodule(up).register_forward_pre_hook(partial(_give_size, down))


def _hook_pool(network: nn.Module, pool: BlockPool) -> None:
    network.get_submodule(pool.after).register_forward_hook(partial(_shrink, pool))
    network.get_submodule(pool.until).register_forward_hook(partial(_grow, pool))


def _samplers(network: nn.Module) -> list[tuple[str, str]]:
    """Names of each level's sampler down and of the one that leads back up to it."""
    downs = [name for name, _ in network.named_modules() if name.endswith(".downsamplers.0")]
    ups = [name for name, _ in network.named_modules() if name.endswith(".upsamplers.0")]
    return list(zip(downs, reversed(ups), strict=True))


class _GeometryMode(TorchFunctionMode):
    """While a layer runs, its convolutions have this geometry.

    A kernel of 1 keeps its own: it is the way back of a LoRA that runs beside the layer's weights.
    """

    def __init__(self, geometry: ConvGeometry) -> None:
        super().__init__()
        self._geometry = geometry

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if function is F.conv2d:
            return self._convolve(function, *args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))

    def _convolve(
        self,
        function: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        if (kernel := weight.shape[-1]) > 1:
            stride, dilation = self._geometry.stride, self._geometry.dilation
            padding = dilation * (kernel // 2)
        result: Tensor = function(input, weight, bias, stride, padding, dilation, groups)
        return result


def _enter(name: str, layer: nn.Module, args: Any) -> None:
    if (step := _step.get()) is None:
        return
    geometry = step.shape.convs.get(name)
    mode = None if geometry is None else _GeometryMode(geometry)
    step.modes.append(mode)
    if mode is not None:
        mode.__enter__()


def _leave(layer: nn.Module, args: Any, output: Any) -> None:
    step = _step.get()
    if step is not None and step.modes and (mode := step.modes.pop()) is not None:
        mode.__exit__(None, None, None)


def _keep_size(level: str, layer: nn.Module, args: Any) -> None:
    if (step := _step.get()) is not None:
        step.sizes[level] = tuple(args[0].shape[-2:])


def _give_size(level: str, layer: nn.Module, args: Any) -> Any:
    if (step := _step.get()) is None:
        return None
    return args[0], step.sizes.pop(level)


def _shrink(pool: BlockPool, layer: nn.Module, args: Any, output: Any) -> Any:
    """Edges of odd maps average the cells that exist."""
    step = _step.get()
    if step is None or pool not in step.shape.pools:
        return None
    step.sizes[pool.after] = tuple(output[0].shape[-2:])
    return (F.avg_pool2d(output[0], 2, ceil_mode=True),)


def _grow(pool: BlockPool, layer: nn.Module, args: Any, output: Any) -> Any:
    step = _step.get()
    if step is None or pool not in step.shape.pools:
        return None
    return (F.interpolate(output[0], size=step.sizes.pop(pool.after), mode="bicubic"),)
