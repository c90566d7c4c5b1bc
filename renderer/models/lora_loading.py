"""LoRA files applied to loaded modules, in every format that a family's pipeline knows.

diffusers' own loaders do the work, part by part, and peft holds the result; what they would leave
out with a warning is refused here.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from frieze.cluster.thread_value import ThreadValue

from ..checkpoints import lora
from ..checkpoints.configs import read_json
from ..errors import ModelError, first_line
from . import finite, quantization, weight_differences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from ..spec.lora_refs import LoraRef

# Of libraries over a file that nobody's trainer wrote; they assert that names are all of one kind,
# and use what a loop over others would have set.
FAILURES = (
    *(OSError, ValueError, LookupError, RuntimeError, ImportError),
    *(AssertionError, AttributeError, TypeError, ArithmeticError, NameError),
)


def add_to_denoiser(denoiser: Any, pipeline_class: Any, loras: Sequence[LoraRef]) -> bool:
    """Adds what the files say of a denoiser, with their weights; False where that is nothing.

    Raises `ModelError`.
    """
    modules, part = _denoiser_of(pipeline_class)
    for each in loras:  # before peft renames what it wraps
        _, left = converted(each.path, pipeline_class, getattr(denoiser, "config", None))
        weight_differences.add(denoiser, each.path, left, each.weight)
    # A pipeline of this one part: only the pipeline knows all formats of its family's LoRAs.
    pipeline = pipeline_class.__new__(pipeline_class)
    pipeline.register_modules(**{**dict.fromkeys(modules), part: denoiser})
    added = {}
    for number, each in enumerate(loras):
        found = _load(pipeline, part, each.path, f"lora{number}")
        if found:
            added[f"lora{number}"] = each.weight
            _refuse_leftovers(denoiser, found, f"lora{number}", each.path)
    if added:
        denoiser.set_adapters(list(added), list(added.values()))
    return bool(added)


def check(denoiser: Any, pipeline_class: Any, loras: Sequence[LoraRef], folder: Path) -> None:
    """Raise `ModelError` for files that do not fit a denoiser, which may be without weights.

    All of a file is read: also whether its numbers are finite.
    """
    _, part = _denoiser_of(pipeline_class)
    for each in loras:
        state, left = converted(each.path, pipeline_class, getattr(denoiser, "config", None))
        _of_part(state, part, pipeline_class, each.path)
        lora.check_converted(each.path, {k: tuple(v.shape) for k, v in state.items()}, folder)
        weight_differences.named(denoiser, each.path, left)


def changed_weights(denoiser: Any, pipeline_class: Any, loras: Sequence[LoraRef]) -> set[str]:
    """The names of a denoiser's parameters that files change; raises `ModelError`."""
    modules = dict(denoiser.named_modules())
    _, part = _denoiser_of(pipeline_class)
    found: set[str] = set()
    for each in loras:
        state, left = converted(each.path, pipeline_class, getattr(denoiser, "config", None))
        factors = (key for key in state if key.startswith(f"{part}.") and ".lora_" in key)
        names = {key.removeprefix(f"{part}.").rpartition(".lora_")[0] for key in factors}
        for name in names & modules.keys():
            found |= {f"{name}.{own}" for own, _ in modules[name].named_parameters(recurse=False)}
        found |= weight_differences.named(denoiser, each.path, left).keys()
    return found


def _denoiser_of(pipeline_class: Any) -> tuple[Any, str]:
    """The names of a pipeline's parts, and of that which draws."""
    modules, _ = pipeline_class._get_signature_keys(pipeline_class)
    return modules, "unet" if "unet" in modules else "transformer"


def converted(
    path: Path, pipeline: Any, unet_config: Any
) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    """(what a pipeline makes of a file, the differences of weights that it leaves out).

    Raises `ModelError` where it leaves out anything else.
    """
    try:
        return check_whole(path, pipeline.lora_state_dict, _options(pipeline, unet_config))
    except FAILURES as error:
        raise _misfit(path, error) from None


def _options(pipeline: Any, unet_config: Any) -> dict[str, Any]:
    options = {"return_alphas": True, "return_lora_metadata": True}
    options |= {"use_safetensors": True, "local_files_only": True}
    is_unet = "unet" in pipeline._lora_loadable_modules and unet_config is not None
    return options | ({"unet_config": unet_config} if is_unet else {})


def _load(pipeline: Any, part: str, path: Path, name: str) -> dict[str, Tensor]:
    """One file through the pipeline's own loader, which is shown this part's tensors only."""
    found: dict[str, Tensor] = {}

    def of_this_part(*args: Any, **options: Any) -> tuple[Any, ...]:
        state, *rest = type(pipeline).lora_state_dict(*args, **options)
        found.update(_of_part(state, part, pipeline, path))
        return dict(found), *rest

    pipeline.lora_state_dict = of_this_part
    try:
        with _several():
            pipeline.load_lora_weights(
                str(path), adapter_name=name, use_safetensors=True, local_files_only=True
            )
    except FAILURES as error:
        raise _misfit(path, error) from None
    return found


def check_whole(
    path: Path, convert: Callable[..., Any], options: Mapping[str, Any]
) -> tuple[Mapping[str, Tensor], dict[str, Tensor]]:
    """What `convert`, a pipeline's `lora_state_dict`, makes of a file, and what is left to us.

    Raises `ModelError` for a file that is not finite, or of which a part is lost. What becomes of
    each tensor is followed through `convert` as gradients would be; zeros change nothing, so that
    they may be left out. Differences of whole weights are left to `weight_differences`.
    """
    from safetensors.torch import load_file

    given, leaves = {}, {}
    with torch.enable_grad():
        for key, value in load_file(path).items():
            given[key] = value
            if value.is_floating_point():
                if not finite.is_finite([value]):
                    raise ModelError(f"{path}: {key} holds NaN or infinity; a whole file works")
                leaves[key] = torch.zeros((), dtype=value.dtype, requires_grad=True)
                given[key] = value + leaves[key]
        values = dict(given)
        weighty = [key for key in leaves if bool(given[key].any())]
        made = convert(given, **options)
    made = made[0] if isinstance(made, tuple) else made
    used = _leaves(made.values())
    used_names = {_module(key) for key, leaf in leaves.items() if id(leaf) in used}
    lost = [key for key in weighty if id(leaves[key]) not in used]
    # A factor's scale is a number by the time that it is multiplied.
    lost = [k for k in lost if not (k.endswith(".alpha") and _module(k) in used_names)]
    _refuse_lost(path, [key for key in lost if not key.endswith(weight_differences.SUFFIXES)])
    state = {key: value.detach() for key, value in made.items()}
    return state, {key: values[key].detach() for key in lost}


def _refuse_lost(path: Path, lost: Sequence[str]) -> None:
    """Raise `ModelError` if a file changes what nobody applies."""
    if lost:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise ModelError(
            f"{path} changes {lost[0]}{more}, which diffusers leaves out; "
            "a file without it works, or one of low-rank factors alone"
        )


def _module(key: str) -> str:
    """The module that a tensor of a LoRA changes, by the file's own name."""
    return re.split(r"\.(?:alpha|lora|diff|dora)|_lora\.", key)[0]


def _leaves(results: Iterable[Tensor]) -> set[int]:
    """Ids of the tensors that these were made of, by torch's record of it."""
    found: set[int] = set()
    seen: set[Any] = set()
    ahead = [x.grad_fn for x in results if x.grad_fn is not None]
    while ahead:
        step: Any = ahead.pop()
        if step in seen:
            continue
        seen.add(step)
        if hasattr(step, "variable"):
            found.add(id(step.variable))
        ahead += [before for before, _ in step.next_functions if before is not None]
    return found


@contextlib.contextmanager
def _several() -> Iterator[None]:
    """peft warns of a second LoRA, which here is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
        yield


def add_to_encoders(pipeline: Any, loras: Sequence[LoraRef], folder: Path) -> None:
    """Adds what the files say of a pipeline's text encoders, with their weights.

    Raises `ModelError`, also where an encoder that a file changes was left out.
    """
    for number, each in enumerate(loras):
        try:
            with _several():
                _load_into_encoders(pipeline, each.path, f"lora{number}", folder)
        except FAILURES as error:
            raise _misfit(each.path, error) from None
    for part in _encoders(pipeline):
        _set_weights(getattr(pipeline, part), loras)


def _load_into_encoders(pipeline: Any, path: Path, name: str, folder: Path) -> None:
    unet = folder / "unet" / "config.json"
    config = SimpleNamespace(**read_json(unet)) if unet.is_file() else None
    _, left = converted(path, pipeline, config)
    _refuse_lost(path, [key for key in left if key.startswith(("text", "lora_te"))])
    options = _options(pipeline, config)
    state, *alphas, metadata = pipeline.lora_state_dict(str(path), **options)
    lora.check_converted(path, {key: tuple(value.shape) for key, value in state.items()}, folder)
    for part in _encoders(pipeline):
        encoder, found = getattr(pipeline, part), _of_part(state, part, pipeline, path)
        if found and encoder is None:
            raise ModelError(f"{path} changes {part}, which {folder} has not")
        if found:
            pipeline.load_lora_into_text_encoder(
                found,
                network_alphas=alphas[0] if alphas else None,
                text_encoder=encoder,
                prefix=part,
                adapter_name=name,
                metadata=metadata,
                low_cpu_mem_usage=True,
            )
            _refuse_leftovers(encoder, found, name, path)


def _encoders(pipeline: Any) -> list[str]:
    return [part for part in pipeline._lora_loadable_modules if part.startswith("text_encoder")]


def _set_weights(encoder: Any, loras: Sequence[LoraRef]) -> None:
    """Makes all LoRAs of an encoder act; only the last to be loaded does by itself."""
    from diffusers.loaders.lora_base import set_adapters_for_text_encoder

    there = getattr(encoder, "peft_config", {})
    names = [f"lora{number}" for number in range(len(loras)) if f"lora{number}" in there]
    if names:
        weights = [loras[int(name.removeprefix("lora"))].weight for name in names]
        set_adapters_for_text_encoder(names, encoder, weights)


def _of_part(
    state: Mapping[str, Tensor], part: str, pipeline: Any, path: Path
) -> dict[str, Tensor]:
    """The tensors of one part of a pipeline; raises `ModelError` where some are of no part."""
    parts = tuple(f"{name}." for name in pipeline._lora_loadable_modules)
    foreign = next((key for key in state if not key.startswith(parts)), None)
    if foreign:
        raise ModelError(f"{path} changes {foreign}, which is in no part that takes a LoRA")
    return {key: value for key, value in state.items() if key.startswith(f"{part}.")}


def _refuse_leftovers(module: nn.Module, found: dict[str, Tensor], name: str, path: Path) -> None:
    """Every factor must have found its layer: peft leaves out, unasked, what has none."""
    there = sum(name in key.split(".") for key, _ in module.named_parameters())
    asked = sum(value.ndim > 1 for value in found.values())
    if there < asked:
        kind = type(module).__name__
        raise ModelError(
            f"{path}: only {there} of its {asked} tensors fit a layer of this {kind}; "
            "a LoRA made for this model works"
        )


def _misfit(path: Path, error: Exception) -> ModelError:
    if isinstance(error, ModelError):
        return error
    return ModelError(
        f"{path} cannot be applied ({first_line(error)}); a LoRA made for this model works"
    )


@dataclass
class AppliedLoras:
    """The files that act on a denoiser, the pipeline's first or its second.

    `is_fused`: they are added to the weights; quantised and float8 ones, which would lose them in
    rounding, keep them beside. `plain` are the weights that files change, as the checkpoint has
    them, in host memory: a stage's weights are then those that a render with its LoRAs alone would
    load, to the last bit.
    """

    denoiser: Any
    pipeline_class: type
    is_second: bool
    is_fused: bool
    plain: Mapping[str, Tensor] = field(default_factory=dict)
    loras: tuple[LoraRef, ...] = ()

    def keep(self, loras: Sequence[LoraRef]) -> None:
        """Remember the weights that these files change; before any is applied."""
        if self.is_fused:
            names = changed_weights(self.denoiser, self.pipeline_class, loras)
            parameters = dict(self.denoiser.named_parameters())
            self.plain = {n: parameters[n].detach().to("cpu", copy=True) for n in sorted(names)}

    def apply(self, loras: tuple[LoraRef, ...]) -> None:
        """Have these files act, and no others; raises `ModelError` for one that does not fit."""
        if loras == self.loras:
            return
        if self.loras:
            self._remove()
        if loras:
            with quantization.as_computed(self.denoiser):
                added = add_to_denoiser(self.denoiser, self.pipeline_class, loras)
            if added and self.is_fused:
                self.denoiser.fuse_lora()
                self.denoiser.unload_lora()
        self.loras = loras

    def _remove(self) -> None:
        if not self.is_fused:
            self.denoiser.unload_lora()
            return
        parameters = dict(self.denoiser.named_parameters())
        for name, weight in self.plain.items():
            parameters[name].data = weight.to(parameters[name].device, copy=True)


_applied: ThreadValue[list[AppliedLoras]] = ThreadValue("applied LoRAs")


@contextlib.contextmanager
def applied() -> Iterator[list[AppliedLoras]]:
    """Inside, on this thread, what LoRAs are applied to is listed."""
    found: list[AppliedLoras] = []
    with _applied.set(found):
        yield found


def note(loras: AppliedLoras) -> None:
    """List a denoiser."""
    if (found := _applied.get()) is not None:
        found.append(loras)
