"""One rank's share of a decoder's training: a plain class that a fleet places on a device.

Every rank holds the whole network and makes the same steps; of each batch it has examples of its
own. What it needs to go on lies in the folder, which all ranks reach.
"""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from frieze.cluster.comm import Comm

from ..autoencoders import autoencoder, infgen
from ..autoencoders.infgen_network import InfGenDecoder
from ..autoencoders.infgen_positions import Window
from ..checkpoints.configs import parse, read_json
from ..checkpoints.decoder import DecoderFacts, Scale
from ..checkpoints.facts import ModelFacts
from ..files.atomic import finish
from ..files.scratch import scratch
from ..spec.render_spec import RenderSpec
from ..worker import model_cache
from ..worker.precision import full_float32
from .pictures.latent_cache import LatentCache
from .pictures.sources import CachedPictures, SourceWords
from .recipe import Recipe
from .samples import write_samples
from .stages import stages
from .training_folder import WORK

LATENTS, SAMPLES = "latents", "samples.png"  # of the folder of work
AT_ONCE = 4  # pictures of one size that are encoded together


@dataclass(frozen=True)
class Task:
    """What the ranks of a training are told."""

    recipe: Recipe
    spec: RenderSpec
    facts: ModelFacts
    start: DecoderFacts | None
    data: SourceWords
    out: str


class DecoderTrainer:
    """Encodes its share of the pictures, then takes steps; its verbs are the driver's to call."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.device = model_cache.device_of(task.spec)
        self.folder = Path(task.out) / WORK
        cache = LatentCache(self.folder / LATENTS)
        self.pictures = CachedPictures(task.data.opened(), cache, self.device)

    def join(self, comm: Comm) -> None:
        """Receive the communicator that the fleet made for this rank."""
        self.comm = comm
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def load(self) -> dict[str, Any]:
        """Where this rank works."""
        return {"pid": os.getpid(), "device": str(self.device)}

    def fill(self) -> Iterator[int]:
        """Make the latents of this rank's pictures that are not there; yields how many are."""
        source, cache = self.pictures.source, self.pictures.cache
        own = range(self.comm.rank, len(source), self.comm.size)
        missing = [number for number in own if not cache.has(source.key(number))]
        yield len(own) - len(missing)
        if not missing:
            return
        with full_float32():
            model = autoencoder.load(self.task.facts, self.task.recipe.spec, self.device)
            for numbers in _of_one_size(missing, self.pictures):
                window = Window.whole(source.decoded_size(numbers[0]))
                pixels_B3HW = torch.cat([source.crop(number, window) for number in numbers])
                cache.fill([source.key(number) for number in numbers], pixels_B3HW, model)
                yield len(numbers)

    def begin(self, index: int) -> int:
        """Take up a stage where it was left; the number of its steps that are done."""
        network = self._network()
        for kind in stages(self.task.recipe)[: index + 1]:
            self.stage = kind.training(network.to(self.device))
            self.stage.restore(self.folder / kind.name)
            network = copy.deepcopy(self.stage.average).requires_grad_(True)
        self.stage.comm, self.name = self.comm, kind.name
        return self.stage.step_index

    def step(self, progress: float | None) -> float:
        """One step of the stage; its loss, on all ranks the same."""
        self.stage.progress = progress
        return self.stage.step(self.pictures)

    def save(self) -> None:
        """Write what going on needs, the decoder as it is by now, and samples of it."""
        self.stage.save(self.folder / self.name)
        export(self.stage.average, Path(self.task.out))
        write_samples(self.stage.average, self.pictures, self.folder / SAMPLES)

    def _network(self) -> InfGenDecoder:
        """What the first stage begins with: a decoder that is there, or a new one."""
        if self.task.start is not None:
            network = infgen.load(self.task.start, torch.float32, torch.device("cpu"))
            return network.requires_grad_(True)
        path = Path(self.task.facts.folder) / "vae" / "config.json"
        values = {k: v for k, v in read_json(path).items() if k in Scale.model_fields}
        scale = parse(Scale, values, path)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.task.recipe.seed)
            return InfGenDecoder(
                latent_channels=self.task.facts.latent.channels,
                scaling_factor=scale.scaling_factor,
                shift_factor=scale.shift_factor or 0.0,
            )


def _of_one_size(numbers: Sequence[int], pictures: CachedPictures) -> Iterator[list[int]]:
    """Pictures that can be encoded together, a few at a time."""
    in_order = sorted(numbers, key=pictures.decoded_size)
    for _, group in itertools.groupby(in_order, key=pictures.decoded_size):
        alike = list(group)
        for first in range(0, len(alike), AT_ONCE):
            yield alike[first : first + AT_ONCE]


def export(network: InfGenDecoder, out: Path) -> None:
    """Write a decoder's files into a folder; each takes its name when it is whole."""
    with scratch(out, "decoder") as part:
        network.save_pretrained(part / "decoder")
        for file in sorted((part / "decoder").iterdir(), reverse=True):  # weights, then config
            finish(file, out / file.name)
