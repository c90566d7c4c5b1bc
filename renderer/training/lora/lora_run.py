"""The driver of a LoRA's training: all that can be refused is refused before any work."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ...checkpoints import checkpoint, lora
from ...checkpoints.checkpoint import load_family
from ...checkpoints.facts import ModelFacts
from ...driver.fingerprint import weights_digest
from ...errors import PlanError, SpecError
from ...events import Event
from ...models import loading
from ...models.meta_models import skeletons
from ...planning.canvas_plan import CanvasPlan
from ...planning.meta_render import META
from ...planning.plan import plan
from ...spec.render_spec import RenderSpec
from ..recipe import SCENES
from ..training_folder import TrainingFolder
from ..training_run import (
    SAVE_EVERY,
    Tell,
    TrainingRun,
    check_place_of_work,
    launched,
    session,
)
from . import lora_adapter, lora_memory, lora_start
from .captioned_folder import data_of
from .examples import Examples
from .lora_recipe import LoraRecipe
from .lora_trainer import LoraTask, LoraTrainer

ANY_MEMORY = 1e6  # GiB
FILE = "pytorch_lora_weights.safetensors"  # as diffusers calls it in a folder


@dataclass(frozen=True)
class LoraStage:
    """The one stage that there is; see `StageProgress`."""

    recipe: LoraRecipe
    name: str = "lora"

    @property
    def steps(self) -> int | None:
        """All of them; None where it ends by the clock."""
        return self.recipe.steps

    @property
    def seconds(self) -> float | None:
        """Its seconds; None where it ends by its steps."""
        return None if self.recipe.minutes is None else self.recipe.minutes * 60


def train_lora(
    recipe: LoraRecipe,
    out: str,
    workers: RenderSpec,
    *,
    continued: bool = False,
    save_every: int = SAVE_EVERY,
    tell: Tell = lambda event: None,
    cancel: threading.Event | None = None,
) -> tuple[Path, ...]:
    """Train a LoRA into a file or a folder, or go on with one that was begun; gives its files.

    Of two experts each has a file. `workers` are the spec's fields of who works where. Raises
    `SpecError`, `ModelError`, `PlanError` and `StoreError` before anything is written, and
    `RenderCancelledError` where `cancel` was set, when all that was learned is on disk.
    """
    folder = TrainingFolder(out, recipe.suffix)
    _check_workers(recipe, workers)
    facts = checkpoint.describe(recipe.model, recipe.revision, recipe.variant)
    drawn = _planned(recipe, workers, facts)
    num_networks = _check_targets(recipe, drawn)
    lora_memory.check(recipe, workers, drawn, lambda other: _planned(other, workers, facts))
    if recipe.data != SCENES and folder.path.is_relative_to(Path(recipe.data).absolute()):
        raise SpecError(
            f"out {folder.path} lies in the folder of pictures {recipe.data}, whose samples would "
            "become its pictures; use a place outside of it"
        )
    about = {"model": weights_digest(Path(facts.folder))}
    if recipe.start is not None:
        files = lora_start.start_files(recipe.start, num_networks)
        about["start"] = " ".join(
            each["digest"] for each in lora.identity(map(lora_start.ref, files))
        )
    folder.check(recipe, about, continued=continued)
    data = data_of(recipe, facts)
    folder.check_pictures(data.identity)
    files = _files(folder, num_networks)
    others = _planned_others(recipe, workers, facts, data.examples)
    named = tuple(map(str, files))
    task = LoraTask(recipe, drawn, data.examples, str(folder.work), named, others)
    with session(workers):
        folder.begin(recipe, about)
        with folder.locked(), launched(LoraTrainer, workers, task) as fleet:
            stage = LoraStage(recipe)
            run = TrainingRun([stage], folder, fleet, save_every, tell, cancel or threading.Event())
            for remark in data.remarks:
                tell(Event("note", message=remark))
            run.note(data.left_out)
            run.fill(len(data.examples), "latents and captions", data.identity)
            run.stage(0, stage)
    tell(Event("done", seconds=time.monotonic() - run.began))
    return files


def _check_workers(recipe: LoraRecipe, workers: RenderSpec) -> None:
    check_place_of_work(workers, recipe.dtype)
    if workers.workers > recipe.batch:
        raise PlanError(
            f"{workers.workers} workers are more than the {recipe.batch} examples of a batch; "
            f"--batch {workers.workers} or fewer workers work"
        )


def _planned(recipe: LoraRecipe, workers: RenderSpec, facts: ModelFacts) -> CanvasPlan:
    """The canvas that is trained on, with the method's positions and attention.

    Raises `PlanError` for a method that looks at a picture before it changes anything.
    """
    if facts.takes_image and not facts.image_optional:
        raise PlanError(
            f"{facts.pipeline} animates a first frame, and a LoRA is trained from text alone; a "
            "model that draws from text works"
        )
    if facts.inpaints:
        raise PlanError(
            f"{facts.pipeline} redraws a part of a picture, and a LoRA is trained on whole ones; "
            "train it on the model that draws from text, which this one was made from"
        )
    if recipe.shift is not None and not facts.schedule.flow:
        raise PlanError(f"shift {recipe.shift:g}: this model is no flow, which has none")
    # What drawing needs is another thing: `lora_memory` says what training does.
    place = {"device": workers.device, "device_memory": ANY_MEMORY}
    found = plan(recipe.spec.model_copy(update=place))
    method = found.method
    measures = method.focus is not None and method.focus.scale is not None
    if measures or method.detection is not None:
        raise PlanError(
            f"method {recipe.method} measures a picture before it changes its attention, and there "
            "is none in training; ntk, yarn, pi, dype or cinescale works"
        )
    if method.decay is not None:
        raise PlanError(
            f"method {recipe.method} lets attention decay in a kernel that has no gradient; ntk, "
            "yarn or riflex works"
        )
    return found


def _planned_others(
    recipe: LoraRecipe, workers: RenderSpec, facts: ModelFacts, examples: Examples
) -> tuple[CanvasPlan, ...]:
    """The canvases of examples that are learned at another size than was asked for."""
    sizes = {each.size for each in examples.files} - {(recipe.height, recipe.width)}
    return tuple(
        _planned(recipe.model_copy(update={"height": size[0], "width": size[1]}), workers, facts)
        for size in sorted(sizes)
    )


def _check_targets(recipe: LoraRecipe, drawn: CanvasPlan) -> int:
    """Refuse targets that a network has not, before any weight is read; how many networks."""
    loading.libraries(drawn.facts)
    with skeletons():
        family = load_family(drawn.facts.family)
        networks = lora_adapter.denoisers(family.load(drawn.facts, drawn.spec, META))
        _check_start(recipe, drawn.facts, networks)
    if recipe.start is None:
        for network in networks:
            lora_adapter.check_targets(network, recipe.targets)
    return len(networks)


def _check_start(recipe: LoraRecipe, facts: ModelFacts, networks: Sequence[nn.Module]) -> None:
    """Refuse a LoRA to go on from that does not fit."""
    if recipe.start is None:
        return
    files = lora_start.start_files(recipe.start, len(networks))
    lora.check(map(lora_start.ref, files), facts)
    for network, file in zip(networks, files, strict=True):
        lora_start.check(network, facts.pipeline, file, facts.folder)


def _files(folder: TrainingFolder, number: int) -> tuple[Path, ...]:
    """One file, and for a second expert's another beside it."""
    first = folder.path if folder.is_file else folder.path / FILE
    return (first, first.with_name(f"{first.stem}_2{first.suffix}"))[:number]
