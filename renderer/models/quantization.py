"""A denoiser's weights in fewer bits: quantised while loading, or stored as float8.

Quantisation is diffusers' own (bitsandbytes, arXiv 2208.07339 and 2305.14314; torchao), and so is
layerwise casting, which keeps weights as float8 and casts a layer for the time of its forward.
"""

from __future__ import annotations

from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frieze.cluster.shared_switch import SharedSwitch

from ..checkpoints.configs import read_json
from ..errors import ModelError, PlanError, SpecError
from .device import device_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from torch import nn

    from ..spec.render_spec import RenderSpec

# The package behind each kind, and whether it works on GPUs alone.
KINDS = {
    "bnb-8bit": ("bitsandbytes", True),
    "bnb-4bit": ("bitsandbytes", True),
    "torchao-int8": ("torchao", False),
    "torchao-float8": ("torchao", False),
}


def check(spec: RenderSpec, device: str) -> None:
    """Whether weights can be kept as the spec says on devices of that type, without loading any.

    Raises `SpecError` for a kind or a pair of options that does not exist and `PlanError` for a
    package or a device that is missing here.
    """
    name = spec.quantization
    if name is None:
        return
    if name not in KINDS:
        raise SpecError(f"no quantization {name!r}; there are: {', '.join(KINDS)}")
    if spec.storage_dtype:
        raise SpecError(
            f"quantization {name!r} and storage_dtype {spec.storage_dtype!r} both say how "
            "weights are kept; give one"
        )
    package, on_gpus = KINDS[name]
    if on_gpus and device != "cuda":
        raise PlanError(f"quantization {name!r} needs a CUDA device, not {device!r}; {_advice()}")
    if find_spec(package) is None:
        raise PlanError(
            f"quantization {name!r} needs the package {package}, which is not installed; "
            f"install it, or {_advice()}"
        )


def _advice() -> str:
    return "storage_dtype float8_e4m3fn works everywhere"


def options(spec: RenderSpec, folder: Path) -> dict[str, Any]:
    """What `from_pretrained` must be told; a checkpoint that is quantised already speaks itself.

    Raises as `check` does, and `ModelError` where both the checkpoint and the spec quantise.
    """
    check(spec, device_type(spec.device))
    theirs = read_json(folder / "config.json").get("quantization_config")
    asked = spec.quantization or spec.storage_dtype
    if theirs and asked:
        method = theirs.get("quant_method") if isinstance(theirs, dict) else "unknown"
        raise ModelError(f"{folder} is quantised already ({method}); leave out {asked!r}")
    return {"quantization_config": _config(spec)} if spec.quantization else {}


def _config(spec: RenderSpec) -> Any:
    import torch
    from diffusers import BitsAndBytesConfig, TorchAoConfig

    match spec.quantization:
        case "bnb-8bit":
            return BitsAndBytesConfig(load_in_8bit=True)
        case "bnb-4bit":
            return BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_compute_dtype=getattr(torch, spec.dtype),
            )
        case "torchao-int8":
            from torchao.quantization import Int8WeightOnlyConfig

            return TorchAoConfig(Int8WeightOnlyConfig())
        case _:
            from torchao.quantization import Float8WeightOnlyConfig

            return TorchAoConfig(Float8WeightOnlyConfig())


def is_quantized(module: nn.Module) -> bool:
    """Whether the weights are quantised, by the checkpoint or by the spec."""
    return getattr(module, "hf_quantizer", None) is not None


def store_as(module: Any, storage: str, compute: torch.dtype) -> None:
    """Layerwise casting of a diffusers model: weights of inner layers kept as `storage`.

    Norms, embeddings and the last projection keep their precision, as diffusers decides. Rank
    threads share the module, so a layer goes back to storage once no thread is inside it.
    """
    import torch

    module.enable_layerwise_casting(storage_dtype=getattr(torch, storage), compute_dtype=compute)
    for layer, hook in _cast_layers(module):
        _share(layer, hook.fn_ref)


@contextmanager
def as_computed(module: nn.Module) -> Iterator[None]:
    """All layers as they compute, whatever they are stored as; peft takes a layer's type over."""
    layers = _cast_layers(module)
    for layer, hook in layers:
        layer.to(hook.compute_dtype)
    try:
        yield
    finally:
        for layer, hook in layers:
            layer.to(hook.storage_dtype)


def cast_layers(module: nn.Module) -> list[nn.Module]:
    """Layers under layerwise casting."""
    return [layer for layer, _ in _cast_layers(module)]


def _cast_layers(module: nn.Module) -> list[tuple[nn.Module, Any]]:
    """Layers under layerwise casting, each with its hook."""
    hooks = ((layer, getattr(layer, "_diffusers_hook", None)) for layer in module.modules())
    found = ((layer, known.get_hook("layerwise_casting")) for layer, known in hooks if known)
    return [(layer, hook) for layer, hook in found if hook is not None]


def _share(layer: nn.Module, calls: Any) -> None:
    """Let several threads be inside one layer's casts at once.

    A convolution waits inside its forward for its neighbours' rows; another rank thread that ends
    the same layer meanwhile must leave the weights as they are.
    """
    cast, uncast = calls.pre_forward, calls.post_forward

    def turn_on() -> Callable[[], Any]:
        cast(layer)
        return lambda: uncast(layer, None)

    switch = SharedSwitch(turn_on)

    def enter(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
        switch.enter()
        return args, kwargs

    def leave(layer: nn.Module, output: Any) -> Any:
        switch.leave()
        return output

    calls.pre_forward, calls.post_forward = enter, leave
