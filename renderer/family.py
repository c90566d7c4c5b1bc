"""What a model family must state, and what the renderer may ask of a loaded model.

A file in `families/` defines `pipelines` (the class names in model_index.json it serves),
`describe(folder)`, `load(facts, ...)` and `encode(facts, ...)`. `describe` reads only small JSON
files, so that planning needs neither weights nor torch.
Shape suffixes: B batch, C channels, H latent rows of a band, W latent columns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from safetensors import SafetensorError, safe_open

from frieze.cluster.layout import Band, Canvas

from . import hub, plugins
from .errors import ModelError
from .method import PositionPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from frieze.cluster.bands import Marks


@dataclass(frozen=True)
class LatentSpec:
    """Latent geometry: `downscale` pixels a latent cell, `patch` cells a token side."""

    channels: int
    downscale: int
    patch: int

    @property
    def unit(self) -> int:
        """Pixels that one token covers on a side; every size is a multiple of it."""
        return self.downscale * self.patch


@dataclass(frozen=True)
class FlowSchedule:
    """The checkpoint's timestep shift: static, or growing with the number of image tokens."""

    shift: float = 1.0
    dynamic: bool = False
    base_shift: float = 0.5
    max_shift: float = 1.15
    base_tokens: int = 256
    max_tokens: int = 4096


@dataclass(frozen=True)
class Cost:
    """What the planner needs to know of a network's size (see plan.estimate)."""

    hidden: int
    num_layers: int
    weight_bytes: Mapping[str, int]
    decoder_channels: int


@dataclass(frozen=True)
class ModelFacts:
    """Everything known of a checkpoint without loading it."""

    family: str
    folder: str
    latent: LatentSpec
    schedule: FlowSchedule
    training_size: int
    max_sequence_length: int
    cost: Cost
    embeds_guidance: bool = False
    takes_negative_prompt: bool = False


@dataclass(frozen=True)
class Conditioning:
    """The encoded prompt; the same tensors on every rank."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where on which canvas a band of latents lies, and what positions mean there."""

    band: Band
    canvas: Canvas
    positions: PositionPolicy


@dataclass(frozen=True)
class Tail:
    """The decoder's last layers, whose normalisation is the last thing that mixes rows widely."""

    norm: nn.GroupNorm
    activation: nn.Module
    conv: nn.Conv2d


class Model(Protocol):
    """A loaded checkpoint on one device; one object may serve many rank threads."""

    facts: ModelFacts
    denoiser_marks: Sequence[Marks]
    decoder_marks: Sequence[Marks]
    encoder_marks: Sequence[Marks]
    tail: Tail

    def denoised(
        self,
        x_BCHW: Tensor,
        sigma: float,
        conditioning: Conditioning,
        place: Place,
        guidance: float,
    ) -> Tensor:
        """The model's estimate of the clean latents of this band (always x0)."""

    def features(self, x_BCHW: Tensor) -> Tensor:
        """The decoder up to, and without, its tail."""

    def encoded(self, pixels_BCHW: Tensor) -> Tensor:
        """Latents of this band's pixels in [-1, 1]: the mode of the posterior."""


def find(model: str) -> Path:
    """The folder of a model: the shipped demo, a path, or a hub id already in the local cache."""
    if model == "demo":
        return Path(__file__).parent / "demo" / "checkpoint"
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ModelError(f"model {model!r} is a file; a folder in diffusers layout works")
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise ModelError(
            f"no model folder at {model!r}; 'demo' is the model that ships with Frieze"
        )
    return hub.snapshot(model)


def describe(model: str) -> ModelFacts:
    """Facts of a model by name; raises `ModelError` when no family can serve it safely."""
    folder = find(model)
    index = read_json(folder / "model_index.json")
    pipeline = str(index.get("_class_name", ""))
    refuse_pickles(folder)
    served: dict[str, str] = {}
    for name in family_names():
        served |= dict.fromkeys(load_family(name).pipelines, name)
    if pipeline not in served:
        known = ", ".join(sorted(served))
        raise ModelError(f"{folder} holds a {pipeline or 'nameless'} model; Frieze knows {known}")
    facts = load_family(served[pipeline]).describe(folder)
    assert isinstance(facts, ModelFacts)
    return facts


def family_names() -> tuple[str, ...]:
    """The families in the folder."""
    return plugins.names("families")


def load_family(name: str) -> ModuleType:
    """The module of a family."""
    return plugins.load("families", name)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder; raises `ModelError` that names the file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing; a folder in diffusers layout has it") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}); fetch the model anew") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path} holds {type(values).__name__}; a JSON object works")
    return values


def refuse_pickles(folder: Path) -> None:
    """Weights must be safetensors: a pickle can run code when it is loaded."""
    for component in sorted(p for p in folder.iterdir() if p.is_dir()):
        names = [p.name for p in component.iterdir()]
        pickles = [n for n in names if n.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl"))]
        if pickles and not any(n.endswith(".safetensors") for n in names):
            raise ModelError(
                f"{component / pickles[0]} is a pickle and may run code; "
                "convert the weights to .safetensors"
            )


def weight_bytes(folder: Path, component: str) -> int:
    """Bytes of a component's weights on disk; raises `ModelError` where it has none."""
    files = sorted((folder / component).glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder / component} holds no .safetensors; fetch the model anew")
    for file in files:
        check_weights(file)
    return sum(file.stat().st_size for file in files)


def check_weights(file: Path) -> None:
    """Read a weight file's header, which says how long it must be; raises `ModelError`."""
    try:
        with safe_open(file, framework="numpy") as opened:
            opened.keys()
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} is corrupt ({error}); fetch the model anew") from None
