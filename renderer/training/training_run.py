"""The driver of a training: latents, stages, saves; stops where it is told to. And a decoder's."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from frieze.cluster.fleet import Fleet, FleetError, LocalFleet, SoloFleet
from frieze.cluster.ray import session as ray_session

from ..autoencoders import autoencoder
from ..checkpoints import checkpoint, decoder
from ..driver.fingerprint import decoder_digest, weights_digest
from ..driver.workers import on_actors
from ..errors import NotFiniteError, PlanError, RenderCancelledError, SpecError
from ..events import Event, Kind
from ..planning import devices
from ..spec.render_spec import RenderSpec
from .infgen_training import TOGETHER, num_groups
from .pictures.sources import data_of
from .recipe import SCENES, Recipe
from .stages import check, stages
from .trainer import DecoderTrainer, Task
from .training_folder import TrainingFolder

Tell = Callable[[Event], None]
SAVE_EVERY = 500  # steps
MOST_TOLD = 3  # pictures that are left out, by name
RECENT = 50  # steps whose mean loss is told


def train_decoder(
    recipe: Recipe,
    out: str,
    workers: RenderSpec,
    *,
    continued: bool = False,
    save_every: int = SAVE_EVERY,
    tell: Tell = lambda event: None,
    cancel: threading.Event | None = None,
) -> Path:
    """Train a decoder into a folder, or go on with one that was begun there; gives the folder.

    `workers` are the spec's fields of who works where. Raises `SpecError`, `ModelError`,
    `PlanError` and `StoreError` before anything is written, and `RenderCancelledError` where
    `cancel` was set, when all that was learned is on disk.
    """
    folder = TrainingFolder(out)
    _check_workers(recipe, workers)
    facts = checkpoint.describe(recipe.model, recipe.revision, recipe.variant)
    autoencoder.check(facts)
    start = None if recipe.start is None else decoder.describe(recipe.start, facts)
    _check_apart(recipe, folder)
    about = {"autoencoder": weights_digest(Path(facts.folder) / "vae")}
    if start is not None:
        about["decoder"] = decoder_digest(Path(start.folder))
    folder.check(recipe, about, continued=continued)
    data = data_of(recipe, facts)
    folder.check_pictures(data.identity)
    task = Task(recipe, workers, facts, start, data.words, str(folder.path))
    with session(workers):
        folder.begin(recipe, about)
        with folder.locked(), launched(DecoderTrainer, workers, task) as fleet:
            cancel = cancel or threading.Event()
            run = TrainingRun(stages(recipe), folder, fleet, save_every, tell, cancel)
            run.note(data.left_out)
            run.fill(len(data.words), "latents", data.identity)
            for index, kind in enumerate(stages(recipe)):
                run.stage(index, kind)
    tell(Event("done", seconds=time.monotonic() - run.began))
    return folder.path


def _check_workers(recipe: Recipe, workers: RenderSpec) -> None:
    check_place_of_work(workers, recipe.dtype)
    groups = num_groups(recipe.batch)
    if workers.workers > groups:
        raise PlanError(
            f"{workers.workers} workers are more than the {groups} groups of the {recipe.batch} "
            f"examples of a batch; --batch {TOGETHER * workers.workers} or fewer workers work"
        )
    check(recipe)


def check_place_of_work(workers: RenderSpec, dtype: str) -> None:
    """Raise `PlanError` where no training can be in a precision, or on workers that come and go."""
    devices.check_here(workers.model_copy(update={"dtype": dtype}))
    if workers.max_workers is not None:
        raise PlanError(
            f"workers {workers.workers}..{workers.max_workers}: a training keeps the workers that "
            f"it begins with; --workers {workers.workers} works"
        )


def _check_apart(recipe: Recipe, folder: TrainingFolder) -> None:
    if recipe.data != SCENES and folder.path.is_relative_to(Path(recipe.data).absolute()):
        raise SpecError(
            f"out {folder.path} lies in the folder of pictures {recipe.data}, whose pictures "
            "would become its samples; use a place outside of it"
        )


@contextmanager
def session(workers: RenderSpec) -> Iterator[None]:
    """One Ray for all of it, where Ray is wanted; `PlanError` where it cannot be had."""
    if not devices.uses_ray(workers):
        yield
        return
    try:
        with ray_session.session(workers.workers, workers.address):
            yield
    except FleetError as error:
        raise PlanError(str(error)) from error


def launched(trainer: type, workers: RenderSpec, task: Any) -> Fleet:
    """The ranks of a training, each with a trainer that was told its task."""
    if devices.uses_ray(workers):
        return on_actors(trainer, workers, task, beside=0)
    if workers.workers == 1:
        return SoloFleet.launch(trainer, task)
    return LocalFleet.launch(trainer, workers.workers, task, timeout=workers.timeout)


class StageProgress(Protocol):
    """A part of a training with an end of its own; see `StageKind`."""

    @property
    def name(self) -> str: ...

    @property
    def steps(self) -> int | None: ...

    @property
    def seconds(self) -> float | None: ...


class TrainingRun:
    """A training under way: who works, what was spent, whom to tell.

    Its fleet's workers have the verbs of `DecoderTrainer`.
    """

    def __init__(
        self,
        stages: Sequence[StageProgress],
        folder: TrainingFolder,
        fleet: Fleet,
        save_every: int,
        tell: Tell,
        cancel: threading.Event,
    ) -> None:
        self.stages, self.folder, self.fleet = stages, folder, fleet
        self.save_every, self.tell, self.cancel = save_every, tell, cancel
        self.began = time.monotonic()
        self.spent = folder.progress()

    def note(self, left_out: Sequence[str]) -> None:
        """Tell why some of the data is not learned from."""
        for why in left_out[:MOST_TOLD]:
            self.tell(Event("note", message=f"left out: {why}"))
        if (more := len(left_out) - MOST_TOLD) > 0:
            self.tell(Event("note", message=f"left out for such reasons: {more} more"))

    def fill(self, number: int, what: str, identity: Sequence[Any]) -> None:
        """What is made once of all of the data, each rank its share of them."""
        done = 0
        self.say("stage", 0, 0, number, message=f"{what} of {number} pictures")
        for _, more in self.fleet.stream("fill"):
            done += more
            if more:
                self.say("step", 0, done, number)
            self._stop_if_asked("before any step")
        self.folder.keep_pictures(identity)

    def stage(self, index: int, kind: StageProgress) -> None:
        """All of a stage that is left."""
        step = self.fleet.all("begin", index)[0]
        self.spent.setdefault(kind.name, 0.0)
        self.say("stage", index + 1, step, self._steps(kind, step), message=kind.name)
        losses: list[float] = []
        while not self._is_over(kind, step):
            began = time.monotonic()
            loss = self.fleet.all("step", self._progress(kind))[0]
            if not math.isfinite(loss):
                raise NotFiniteError(
                    f"step {step + 1} of {kind.name}: the loss is {loss}; a smaller --rate in "
                    "another folder may work"
                )
            seconds = time.monotonic() - began
            step, losses = step + 1, [*losses[1 - RECENT :], loss]
            self.spent[kind.name] += seconds
            mean = sum(losses) / len(losses)
            facts = {"loss": mean} | self._left(kind)
            self.say("step", index + 1, step, self._steps(kind, step), seconds=seconds, facts=facts)
            if step % self.save_every == 0 or self._is_over(kind, step) or self.cancel.is_set():
                self._save(kind, step, mean)
            self._stop_if_asked(f"after step {step} of {kind.name}")

    def say(self, kind: Kind, index: int, step: int, num_steps: int, **more: Any) -> None:
        """Tell an event; making the latents counts as a stage before the others."""
        more |= {"stage": index + 1, "num_stages": len(self.stages) + 1}
        self.tell(Event(kind, step=step, num_steps=num_steps, **more))

    def _progress(self, kind: StageProgress) -> float | None:
        limit = kind.seconds
        return None if limit is None else min(1.0, self.spent[kind.name] / limit)

    def _is_over(self, kind: StageProgress, step: int) -> bool:
        limit, steps = kind.seconds, kind.steps
        over = limit is not None and self.spent[kind.name] >= limit
        return over or (steps is not None and step >= steps)

    def _steps(self, kind: StageProgress, step: int) -> int:
        """The stage's steps; by the clock, as many as there will be at this pace."""
        steps = kind.steps
        if steps is not None:
            return steps
        part = self._progress(kind) or 0.0
        return max(step, round(step / part)) if part else 0

    def _left(self, kind: StageProgress) -> dict[str, float]:
        limit = kind.seconds
        return {} if limit is None else {"left": max(0.0, limit - self.spent[kind.name])}

    def _save(self, kind: StageProgress, step: int, loss: float) -> None:
        self.fleet.one("save")
        self.folder.keep_progress(self.spent)
        self.folder.log((kind.name, step, round(self.spent[kind.name]), f"{loss:.5f}"))

    def _stop_if_asked(self, where: str) -> None:
        if self.cancel.is_set():
            raise RenderCancelledError(f"stopped {where}")
