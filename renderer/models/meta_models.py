"""Models without weights: the same modules on the meta device, built from config.json alone.

While `skeletons()` is on, `loading.component` builds these instead of reading a checkpoint, so a
family's own `load` gives a whole model that can be run for its shapes and its memory.  `shorten`
leaves out the runs of layers whose equals have told all there is to know.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from frieze.cluster.thread_value import ThreadValue
from frieze.kernels.flop_count import add_work, current_work
from frieze.kernels.work import Work

from ..checkpoints.configs import read_json
from ..files.library_errors import as_model_error
from ..spec.networks import loras_of_all
from . import quantization

if TYPE_CHECKING:
    from ..spec.render_spec import RenderSpec

# Bytes of a quantised weight: 8 bits; 4 bits and a float32 scale for every 64 of them.
QUANTISED = {"bnb-8bit": 1.0, "bnb-4bit": 0.5 + 4 / 64, "torchao-int8": 1.0, "torchao-float8": 1.0}


@dataclass(frozen=True)
class Skeleton:
    """One part of a model on meta, what its weights take, and what a cast layer takes twice.

    `shapes` are those of the weights that its files must have, by name; `host_bytes` are
    kept in host memory beside them.
    """

    folder: Path
    module: nn.Module
    weight_bytes: int
    shapes: Mapping[str, tuple[int, ...]]
    cast_bytes: int = 0
    host_bytes: int = 0

    @property
    def subfolder(self) -> str:
        """Its name."""
        return self.folder.name


_built: ThreadValue[list[Skeleton]] = ThreadValue("skeletons")


@contextlib.contextmanager
def skeletons() -> Iterator[list[Skeleton]]:
    """Inside, on this thread, models are loaded as skeletons; gives the list of their parts."""
    parts: list[Skeleton] = []
    with _built.set(parts):
        yield parts


def wanted() -> bool:
    """Are skeletons to be built on this thread?"""
    return _built.get() is not None


def build(kind: Any, folder: Path, spec: RenderSpec, dtype: torch.dtype, denoiser: bool) -> Any:
    """A part on meta in eval mode, in the precision in which `from_pretrained` would give it."""
    parts = _built.get()
    assert parts is not None
    config = {k: v for k, v in read_json(folder / "config.json").items() if k not in _PRIVATE}
    with as_model_error(folder / "config.json", "be built from"), torch.device("meta"):
        module = kind.from_config(config)
    shapes = {name: tuple(x.shape) for name, x in module.state_dict().items()}
    _cast(module, dtype)
    size, cast = weight_bytes(module), 0
    if denoiser and spec.quantization:
        size, cast = _quantised(module, QUANTISED[spec.quantization])
    elif denoiser and spec.storage_dtype:
        quantization.store_as(module, spec.storage_dtype, compute=dtype)
        size = weight_bytes(module)
    if denoiser and (spec.quantization or spec.storage_dtype):  # LoRAs stay beside the weights
        loras = loras_of_all(spec, second=folder.name == "transformer_2")
        size += sum(each.path.stat().st_size for each in loras)
    parts.append(Skeleton(folder, module, size, shapes, cast))
    return module.eval().requires_grad_(False)


def keep(module: nn.Module, names: Iterable[str]) -> None:
    """Count that these weights of a part are kept in host memory too, as they are now."""
    parts, parameters = _built.get(), dict(module.named_parameters())
    assert parts is not None
    size = sum(parameters[name].numel() * parameters[name].element_size() for name in names)
    for index, part in enumerate(parts):
        if part.module is module:
            parts[index] = replace(part, host_bytes=size)


def absent(kind: Any, folder: Path, spec: RenderSpec) -> Any:
    """A part that nothing will be asked of: on meta, and so on whatever device it is sent to."""
    with skeletons():
        module = build(kind, folder, spec, torch.float32, denoiser=False)
    module.to = lambda *_, **__: module
    return module


_PRIVATE = ("quantization_config",)


def weight_bytes(module: nn.Module) -> int:
    """Bytes of all parameters and buffers; what two names share counts once."""
    tensors = {id(x): x for x in (*module.parameters(), *module.buffers())}
    return sum(x.numel() * x.element_size() for x in tensors.values())


def _cast(module: Any, dtype: torch.dtype) -> None:
    """All floating weights but those that the class keeps in float32 beside narrow ones."""
    kept = getattr(module, "_keep_in_fp32_modules", None) or ()
    if dtype == torch.float32:
        kept = ()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point() and not any(part in name.split(".") for part in kept):
            tensor.data = tensor.data.to(dtype)


def _quantised(module: nn.Module, bytes_each: float) -> tuple[int, int]:
    """Bytes with the weights of linear layers quantised, and of the largest one unpacked."""
    linear = [layer.weight for layer in module.modules() if isinstance(layer, nn.Linear)]
    saved = sum(int(w.numel() * (w.element_size() - bytes_each)) for w in linear)
    largest = max((w.numel() * w.element_size() for w in linear), default=0)
    return weight_bytes(module) - saved, largest


# (layer, other) -> whether a step treats two layers of one form alike.
Alike = Callable[[str, str], bool]
_alike: ThreadValue[Alike] = ThreadValue("alike")


def treated(alike: Alike) -> contextlib.AbstractContextManager[None]:
    """Inside, on this thread, no layer is left out that `alike` tells from the one before it."""
    return _alike.set(alike)


def shorten(network: nn.Module) -> None:
    """Of every run of equal layers only the first two and the last are run from now on.

    The others too, inside `treated`, where a step treats them otherwise than the second.
    """
    for name, layers in network.named_modules():
        if not isinstance(layers, nn.ModuleList):
            continue
        if len(layers) > 3 and len({_form(layer) for layer in layers}) == 1:
            stand_in = _StandIn(f"{name}.1", layers[1])
            for index, layer in list(enumerate(layers))[2:-1]:
                layer.forward = partial(stand_in.result, f"{name}.{index}", layer.forward)


def _form(layer: nn.Module) -> tuple[Any, ...]:
    shapes = tuple((name, tuple(x.shape), x.dtype) for name, x in layer.named_parameters())
    return type(layer), shapes, tuple(getattr(each, "stride", None) for each in layer.modules())


class _StandIn:
    """Gives results of the same shapes as a layer's last ones, at the same cost."""

    def __init__(self, name: str, layer: nn.Module) -> None:
        self._name = name
        self._last: Any = None
        self._work = self._before = Work()
        layer.register_forward_pre_hook(self._begin)
        layer.register_forward_hook(self._keep)

    def _begin(self, layer: nn.Module, args: Any) -> None:
        self._before = current_work()

    def _keep(self, layer: nn.Module, args: Any, output: Any) -> None:
        self._work = current_work() - self._before
        self._last = tree_map_only(Tensor, _Shape, output)

    def result(self, name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What the layer of this name would give; its own `forward` where it is no other's like."""
        alike = _alike.get()
        if alike is not None and not alike(self._name, name):
            return forward(*args, **kwargs)
        add_work(self._work)
        return tree_map_only(_Shape, _Shape.made, self._last)


class _Shape:
    """What is needed to make a tensor like another, without keeping that one alive."""

    def __init__(self, x: Tensor) -> None:
        self.shape, self.stride, self.dtype = x.shape, x.stride(), x.dtype

    def made(self) -> Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")
