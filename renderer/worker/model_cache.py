"""What a process has loaded: one model at a time, shared by its rank threads."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..autoencoders import infgen
from ..checkpoints.checkpoint import load_family
from ..checkpoints.decoder import DecoderFacts
from ..checkpoints.facts import ModelFacts
from ..models import loading
from ..models.device import device_type
from ..models.family import Model
from ..models.lora_loading import AppliedLoras, applied
from ..spec.networks import all_loras, has_stage_loras

if TYPE_CHECKING:
    from ..autoencoders.infgen_network import InfGenDecoder
    from ..planning.canvas_plan import CanvasPlan
    from ..planning.stage_plan import Loras
    from ..spec.render_spec import RenderSpec


_LOADED: dict[tuple[str, ...], tuple[Model, list[AppliedLoras]]] = {}
_DECODERS: dict[tuple[str, ...], InfGenDecoder] = {}


_LOADING = threading.Lock()


def model(facts: ModelFacts, spec: RenderSpec, device: torch.device) -> Model:
    """The model of a spec, loaded by whichever rank thread comes first; another one is let go.

    The picture's own LoRAs act on it, until a stage has others.
    """
    with _LOADING:
        found, loras = _loaded(facts, spec, device)
        for each in loras:
            each.apply(spec.lora_2 if each.is_second else spec.lora)
        return found


def apply(loras: Loras, facts: ModelFacts, spec: RenderSpec, device: torch.device) -> None:
    """Have these LoRAs act on the model of a spec, by whichever rank thread comes first.

    No rank may be in a step meanwhile. The weights stay loaded.
    """
    if not has_stage_loras(spec):
        return
    with _LOADING:
        for each in _loaded(facts, spec, device)[1]:
            each.apply(loras[each.is_second])


def _loaded(
    facts: ModelFacts, spec: RenderSpec, device: torch.device
) -> tuple[Model, list[AppliedLoras]]:
    key = (facts.family, facts.folder, _choices(spec), str(device))
    if key not in _LOADED:
        _LOADED.clear()
        loading.libraries(facts)
        with applied() as loras:
            _LOADED[key] = load_family(facts.family).load(facts, spec, device), loras
    return _LOADED[key]


def decoder(facts: DecoderFacts, spec: RenderSpec, device: torch.device) -> InfGenDecoder:
    """The decoder of any size of a plan, loaded once likewise."""
    key = (facts.folder, spec.dtype, str(device))
    with _LOADING:
        if key not in _DECODERS:
            _DECODERS.clear()
            _DECODERS[key] = infgen.load(facts, loading.dtype_of(spec.dtype), device)
        return _DECODERS[key]


def clear() -> None:
    """Let go of what is loaded."""
    with _LOADING:
        _LOADED.clear()
        _DECODERS.clear()


def weights(plan: CanvasPlan) -> tuple[str, ...]:
    """Plans of which this is equal are drawn with the same weights on the same device."""
    return (plan.facts.family, plan.facts.folder, _choices(plan.spec), plan.spec.device)


def device_of(spec: RenderSpec) -> torch.device:
    """The device that a process of this render works on; `cuda` is its first one, by number.

    A device without a number is none to `torch.cuda.set_device`, nor equal to its tensors'.
    """
    device = torch.device(device_type("auto") if spec.device == "auto" else spec.device)
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def peak_bytes(device: torch.device) -> int:
    """Peak bytes so far: of the device where it counts them, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Not getrusage: a forked process inherits its parent's peak there.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def _choices(spec: RenderSpec) -> str:
    """What of a spec decides the loaded weights; the denoiser's are not where none is asked."""
    kept = (spec.quantization, spec.storage_dtype, spec.denoises)
    loras = (spec.lora, spec.lora_2, *((all_loras(spec),) if has_stage_loras(spec) else ()))
    return repr((spec.dtype, spec.variant, spec.controlnet, *loras, *kept))
