"""The LoRAs on a loaded denoiser, which stages of a cascade may have others of.

Where they are added to the weights, what any stage's change is kept as it was, in host memory: a
stage's weights are then those that a render with its LoRAs alone would load, to the last bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from frieze.cluster.thread_value import ThreadValue

from . import lora_loading, quantization

if TYPE_CHECKING:
    from torch import Tensor

    from ..spec.lora_refs import LoraRef


@dataclass
class AppliedLoras:
    """The files that act on a denoiser, the pipeline's first or its second.

    `is_fused`: they are added to the weights; quantised and float8 ones, which would lose them in
    rounding, keep them beside. `plain` are the weights that files change, as the checkpoint has
    them.
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
            names = lora_loading.changed_weights(self.denoiser, self.pipeline_class, loras)
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
                added = lora_loading.add_to_denoiser(self.denoiser, self.pipeline_class, loras)
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
