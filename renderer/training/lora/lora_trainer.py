"""One rank's share of a LoRA's training: a plain class that a fleet places on a device.

Every rank holds the whole model and makes the same steps; of each batch it has examples of its
own. What it needs to go on lies in the folder of work, which all ranks reach.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from frieze.cluster.comm import Comm

from ...checkpoints.checkpoint import load_family
from ...models import loading
from ...planning.canvas_plan import CanvasPlan
from ...worker import model_cache
from ...worker.precision import exactly, full_float32
from ...worker.prompt_encoding import encoded
from . import lora_adapter
from .aspect_buckets import Size
from .example_cache import ExampleCache
from .examples import Examples
from .lora_recipe import LoraRecipe
from .lora_samples import write_samples
from .lora_training import LoraTraining
from .method_denoiser import MethodDenoiser

SAMPLES = "samples"  # of the folder of work
NO_CAPTION = ""


@dataclass(frozen=True)
class LoraTask:
    """What the ranks of a training are told.

    `files` are written, one for each network; `others` are plans of the examples' other sizes.
    """

    recipe: LoraRecipe
    plan: CanvasPlan
    examples: Examples
    work: str
    files: tuple[str, ...]
    others: tuple[CanvasPlan, ...] = ()


class LoraTrainer:
    """Encodes its share of the examples, then takes steps; its verbs are the driver's to call."""

    def __init__(self, task: LoraTask) -> None:
        self.task, self.recipe, self.plan = task, task.recipe, task.plan
        self.device = model_cache.device_of(task.plan.spec)
        self.work = Path(task.work)
        self.source = task.examples.opened()
        self.cache = ExampleCache(self.work)

    def join(self, comm: Comm) -> None:
        """Receive the communicator that the fleet made for this rank."""
        self.comm = comm
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def load(self) -> dict[str, Any]:
        """Where this rank works."""
        return {"pid": os.getpid(), "device": str(self.device)}

    def fill(self) -> Iterator[int]:
        """Encode this rank's captions, then its pictures, that are not; yields how many are.

        The text encoders are gone before the model is loaded.
        """
        own = range(self.comm.rank, len(self.source), self.comm.size)
        missing = [n for n in own if not self.cache.has_latents(self.source.key(n))]
        yield len(own) - len(missing)
        self._encode_texts()
        self._load()
        for number in missing:
            self._encode(number)
            yield 1

    def begin(self, index: int) -> int:
        """Take up the training where it was left; the number of its steps that are done."""
        autocast = self.recipe.dtype == "bfloat16"
        self.denoiser = MethodDenoiser(self.plan, self.model, autocast=autocast)
        others = {
            (each.spec.height, each.spec.width): MethodDenoiser(each, self.model, autocast=autocast)
            for each in self.task.others
        }
        self.training = LoraTraining(self.recipe, self.denoiser, others)
        self.training.restore(self.work)
        self.training.comm = self.comm
        return self.training.step_index

    def step(self, progress: float | None) -> float:
        """One step; its loss, on all ranks the same."""
        self.training.progress = progress
        with full_float32():
            return self.training.step(self)

    def save(self) -> None:
        """Write what going on needs, the LoRA as it is by now, and samples of it."""
        self.training.save(self.work)
        with self.training.averaged():
            for network, file in zip(self.training.networks, self.task.files, strict=True):
                lora_adapter.save(network, self.plan.facts.pipeline, Path(file))
            if self.recipe.sample_prompt:
                name = f"{self.training.step_index:06}"
                write_samples(self.denoiser, self._halves(), self.work / SAMPLES, name)

    def size(self, number: int) -> Size:
        """An example's, in pixels."""
        return self.source.size(number)

    def latents(self, number: int) -> Tensor:
        """An example's, [1, C, T, H, W]."""
        return self.cache.latents(self.source.key(number), self.device)

    def text(self, number: int | None) -> dict[str, Tensor]:
        """What a caption is encoded to, or no caption."""
        text = NO_CAPTION if number is None else self.source.caption(number)
        return self.cache.text(text, self.device)

    def __len__(self) -> int:
        return len(self.source)

    def _halves(self) -> list[list[dict[str, Tensor]]]:
        """Of each prompt of the samples: it, and no prompt where guidance asks that too."""
        number = self.denoiser.stage.guidance.num_halves
        return [
            [self.cache.text(text, self.device) for text in (prompt, NO_CAPTION)[:number]]
            for prompt in self.recipe.sample_prompt
        ]

    def _encode_texts(self) -> None:
        texts = {NO_CAPTION, *self.recipe.sample_prompt}
        texts |= {self.source.caption(number) for number in range(len(self.source))}
        own = sorted(texts)[self.comm.rank :: self.comm.size]
        facts, spec = self.plan.facts, self.plan.spec
        with loading.kept_encoders():
            for text in own:
                if not self.cache.has_text(text):
                    found = encoded(facts, spec, (text,), 1)[text]
                    self.cache.keep_text(text, found.halves[0])

    def _load(self) -> None:
        """The model, this rank's own: ranks of one process would share a cached one's factors."""
        loading.libraries(self.plan.facts)
        family = load_family(self.plan.facts.family)
        self.model = family.load(self.plan.facts, self.plan.spec, self.device)

    @exactly
    def _encode(self, number: int) -> None:
        pixels_BCTHW = self.source.pixels(number).to(self.device)
        self.cache.keep_latents(self.source.key(number), self.model.encoded(pixels_BCTHW))
