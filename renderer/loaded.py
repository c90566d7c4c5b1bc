"""What a process has loaded: one model at a time, shared by its rank threads."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from . import finite, loading, truncation, weight_names
from .errors import FriezeError
from .family import Conditioning, Model, ModelFacts, load_family
from .library_errors import as_model_error
from .precision import exactly

if TYPE_CHECKING:
    import numpy as np

    from .plan import CanvasPlan
    from .spec import RenderSpec

_LOADED: dict[tuple[str, ...], Model] = {}
_LOADING = threading.Lock()


def model(facts: ModelFacts, spec: RenderSpec, device: torch.device) -> Model:
    """The model of a spec, loaded by whichever rank thread comes first; another one is let go."""
    key = (facts.family, facts.folder, _choices(spec), str(device))
    with _LOADING:
        if key not in _LOADED:
            _LOADED.clear()
            loading.libraries(facts)
            _LOADED[key] = load_family(facts.family).load(facts, spec, device)
        return _LOADED[key]


def encode_prompts(plan: CanvasPlan, image: np.ndarray | None) -> dict[str, Conditioning]:
    """By prompt: it and its negative, on the CPU; the text encoders live for this call only.

    `image` [H, W, 3] in [0, 1] is the first frame, for models that animate one.
    """
    with loading.kept_encoders():
        return _encoded(plan, image)


def encode_many(
    asked: Sequence[tuple[CanvasPlan, np.ndarray | None]],
) -> list[dict[str, Conditioning] | FriezeError]:
    """`encode_prompts` of each; plans of the same weights that follow each other load them once.

    What a plan's prompts were refused with stands in their place.
    """
    found: list[dict[str, Conditioning] | FriezeError] = []
    for _, alike in itertools.groupby(asked, key=lambda each: weights(each[0])):
        with loading.kept_encoders():
            for plan, image in alike:
                try:
                    found.append(_encoded(plan, image))
                except FriezeError as error:
                    found.append(error)
    return found


@exactly
def _encoded(plan: CanvasPlan, image: np.ndarray | None) -> dict[str, Conditioning]:
    spec, facts = plan.spec, plan.facts
    loading.libraries(facts)
    remarks = weight_names.check(facts, spec)  # before any weight is read

    def encoded(prompt: str) -> Conditioning:
        folder = Path(facts.folder)
        with truncation.calls() as calls, as_model_error(folder, "encode the prompt"):
            found: Conditioning = load_family(facts.family).encode(
                facts,
                spec.model_copy(update={"prompt": prompt}),
                device_of(spec),
                plan.guidance.num_halves,
                image,
            )
        if not all(finite.is_finite(half.values()) for half in found.halves):
            raise finite.error("what the text encoders make of it", "the prompt", spec)
        cuts = truncation.cuts(calls, prompt, spec.negative_prompt)
        return dataclasses.replace(found.on("cpu"), cuts=cuts, remarks=remarks)

    return {prompt: encoded(prompt) for prompt in plan.prompts}


def weights(plan: CanvasPlan) -> tuple[str, ...]:
    """Plans of which this is equal are drawn with the same weights on the same device."""
    return (plan.facts.family, plan.facts.folder, _choices(plan.spec), plan.spec.device)


def device_of(spec: RenderSpec) -> torch.device:
    """The device that a process of this render works on; `cuda` is its first one, by number.

    A device without a number is none to `torch.cuda.set_device`, nor equal to its tensors'.
    """
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(kind if spec.device == "auto" else spec.device)
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def peak_bytes(device: torch.device) -> int:
    """Peak bytes so far: of the device where it counts them, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Not getrusage: a forked process inherits its parent's peak there.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def _choices(spec: RenderSpec) -> str:
    """What of a spec decides the loaded weights."""
    kept = (spec.quantization, spec.storage_dtype)
    return repr((spec.dtype, spec.variant, spec.lora, spec.lora_2, *kept))
