"""The loop over stages and steps of a render, and its pixels, whatever becomes of the workers.

There is one way to go on, from a stopped render as from a lost worker or on another number of
workers: take up the newest saved state and do what is missing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

from frieze.cluster.bands import BandError
from frieze.cluster.fleet import Fleet, FleetError, cancelled_by

from ..errors import (
    NotFiniteError,
    PlanError,
    RenderCancelledError,
    TakenOverError,
)
from ..events import StepReport
from ..journal.inventory import Reuse, SavedState
from ..models import finite
from ..monitoring import observers
from ..planning import canvas_plan
from ..planning.canvas_plan import CanvasPlan
from ..planning.stage_plan import num_cached
from ..spec.units import GIB
from ..store.store import Store
from ..store.upstream import is_last
from ..worker.writers.states import Digests
from .caller import Caller, RenderHandle
from .recovery import PASSING, Recovery, how_to_resume
from .state_slots import StateSlots
from .verb_timeouts import VerbTimeouts
from .workers import Prompts, note_numerics, replanned


class Resized(Exception):
    """Other workers go on from here."""


class RenderLoop:
    """The steps of one plan on one fleet, written to one store."""

    def __init__(
        self,
        fleet: Fleet,
        plan: CanvasPlan,
        store: Store,
        prompts: Prompts | None,
        caller: Caller,
    ) -> None:
        self.fleet = fleet
        self.asked = plan
        self.plan = plan
        self.store = store
        self.prompts = prompts
        self.caller = caller
        self.slots = StateSlots(store.states())
        self._written = set(store.done())
        self._recovery = Recovery(fleet, store, self.slots, caller, plan.spec)
        self._seconds: list[float] = []  # of this stage's steps since it was taken up
        self._timeouts = VerbTimeouts(fleet.timeout)
        self._shown = -1  # the stage whose beginning was told
        self._called = 0  # steps that the callback knows of
        self._now = (0, 0)  # the stage and the steps of it that are done
        self._reuse = Reuse()

    def run(self) -> int:
        """Everything that is missing; returns the largest worker's peak memory in bytes."""
        failed: Exception | None = None
        while True:
            try:
                if failed is not None:
                    self._recovery.recover(failed, self.plan, self._now)
                self.plan = self._set_plan()
                self._denoise()
                self._decode()
                self._report_reuse()
                return max(self._all("memory"))
            except Resized:
                failed = None
            except TakenOverError:
                raise
            except PASSING as error:
                self._recovery.count(error, self.plan, self._now, len(self._written))
                failed = error
            except NotFiniteError as error:
                kept = f"{error}; {self.store.path} keeps what was finite"
                raise NotFiniteError(kept) from error
            except (FleetError, BandError) as error:
                raise self._recovery.failed(error) from error

    # ---- verbs

    def _all(self, verb: str, *args: Any, stage: int | None = None) -> list[Any]:
        """A verb on all ranks, which hangs when it is silent for much longer than such verbs were.

        `stage` is the one whose canvas it works on, if not the one the render stands at.
        """
        began, area = time.monotonic(), self._area(self._now[0] if stage is None else stage)
        results = self.fleet.all(verb, *args, timeout=self._timeouts.limit(verb, area))
        self._timeouts.took(verb, area, time.monotonic() - began)
        return results

    def _area(self, stage: int) -> int:
        canvas = self.plan.stages[stage].canvas
        return canvas.height * canvas.width * canvas.frames

    # ---- denoising

    def _set_plan(self) -> CanvasPlan:
        """The plan for as many workers as there are, told to them; they are measured anew."""
        plan, self._timeouts = self.plan, VerbTimeouts(self.fleet.timeout)
        if plan.spec.workers != self.fleet.size:
            try:
                plan = replanned(self.asked, self.fleet.size)
            except PlanError as error:
                raise self._recovery.failed(error) from error
        self.fleet.all("set_plan", plan)
        return plan

    @property
    def _is_drawn(self) -> bool:
        return is_last([stage.num_steps for stage in self.plan.stages], self.slots.newest)

    def _denoise(self) -> None:
        fleet, made, state = self.fleet, self.plan, self.slots.newest
        if self._shown < 0:
            gib = made.weight_bytes / GIB
            self.caller.say("note", message=f"loading weights, {gib:.2f} GiB")
        fleet.all("load")
        note_numerics(self.fleet, self.store.journal, self.caller)
        if self._is_drawn:
            assert state is not None
            self._restore(state)
            return
        for prompt, conditioning in (self.prompts or {}).items():
            fleet.all("condition", conditioning, prompt)
        for stage_index in range(state.stage if state else 0, len(made.stages)):
            if state and state.stage == stage_index:
                self._restore(state)
                first_step = state.step
                if measured := self.store.journal.entropies(stage_index):
                    self._all("set_entropies", measured)
            else:
                if stage_index - 1 in made.painted:
                    self._keep(f"{stage_index - 1}-picture", 0, self._all("decode_stage"))
                newest = self.slots.newest
                slot = newest.slot if newest else None
                begun = self._all("begin", stage_index, slot, stage=stage_index)
                self._reuse = Reuse(
                    (0,) * num_cached(made.spec, made.stages[stage_index]), self._reuse.reused
                )
                self._check([fault for _, fault in begun], stage_index, 0)
                self._keep(f"{stage_index}-guide", 0, [kept for kept, _ in begun])
                first_step = 0
            self.caller.trace(fleet, made, stage_index, first_step)
            self._stage(stage_index, first_step)

    def _restore(self, state: SavedState) -> None:
        self._reuse = self.store.journal.reuse(state)
        stage = self.plan.stages[state.stage]
        computed = self._reuse.computed or (0,) * num_cached(self.plan.spec, stage)
        faults = self.fleet.all("restore", state.stage, state.slot, state.step, computed)
        self._check(faults, state.stage, state.step)

    def _check(self, faults: Sequence[str], stage_index: int, step: int) -> None:
        """Raise `NotFiniteError` for what the workers found, of which all say the same."""
        if faults[0]:
            where = canvas_plan.at_step(self.plan, stage_index, step)
            raise finite.error(faults[0], where, self.plan.spec)

    def _stage(self, stage_index: int, first_step: int) -> None:
        """All steps of one stage; its last state is on disk at the end."""
        made, stage = self.plan, self.plan.stages[stage_index]
        self._now, self._seconds = (stage_index, first_step), []
        if self._shown != stage_index:
            unit = made.facts.latent.downscale
            size = f"{stage.canvas.width * unit}x{stage.canvas.height * unit}"
            self.caller.say("stage", made, stage_index, first_step, message=size)
            self._shown = stage_index
        with cancelled_by(None):  # a step is finished and saved
            for step in range(first_step, stage.num_steps):
                self._step(stage_index, step, is_saved=step == first_step)
                self._now = (stage_index, step + 1)
                self._call_back(stage_index, step)
                self._stop_if_asked()
                self._resize_if_better()
            self._save()

    def _step(self, stage_index: int, step: int, *, is_saved: bool) -> None:
        """One step, while the state before it is written if its turn has come."""
        slot = None
        if not is_saved and step % self.plan.spec.save_every == 0:
            slot = self._slot()
        began = time.monotonic()
        reports: Sequence[StepReport] = self._all("step", step, slot)
        facts = observers.of_step(reports, time.monotonic() - began)
        if slot is not None:
            saving = max(report.saving for report in reports)
            self._confirm(SavedState(stage_index, step, slot), [r.state for r in reports], saving)
        computed = reports[0].computed
        reused = sum(after <= step for after in computed)
        self._reuse = Reuse(computed, self._reuse.reused + reused)
        facts |= {"reused": reused} if computed else {}
        self._check([report.fault for report in reports], stage_index, step + 1)
        self._keep(f"{stage_index}-clean", step, [r.kept for r in reports])
        self.caller.trace(self.fleet, self.plan, stage_index, step + 1)
        if is_saved:  # the first one since the workers were arranged
            note_numerics(self.fleet, self.store.journal, self.caller)
        if step == 0:
            self._spread_entropies(stage_index)
        self._seconds.append(max(report.seconds for report in reports))
        self.caller.say(
            "step",
            self.plan,
            stage_index,
            step + 1,
            seconds=self._seconds[-1],
            facts=facts,
        )

    def _resize_if_better(self) -> None:
        """Between two steps, let others in or go where the fleet sees a reason."""
        stage_index, step = self._now
        stage = self.plan.stages[stage_index]
        if not self.fleet.should_resize(
            (stage.num_steps - step) * statistics.median(self._seconds)
        ):
            return
        self._save()
        before, began = self.fleet.size, time.monotonic()
        self.fleet.resize()
        self.caller.say(
            "resized",
            self.plan,
            stage_index,
            step,
            seconds=time.monotonic() - began,
            message=f"{before} workers become {self.fleet.size} after step {step}",
            facts=observers.of_fleet(self.fleet),
        )
        raise Resized

    def _slot(self) -> int:
        """Where the next state goes; raises `StoreError` if the store has another driver by now.

        One that was silent for too long must not write over its successor's states.
        """
        self.store.journal.claim()
        stage_index = self._now[0]
        return self.slots.take(stage_index, self.store.layout.latents[stage_index].shape[0])

    def _save(self) -> None:
        """Have the state that the workers stand at on disk, if it is not."""
        stage_index, step = self._now
        newest = self.slots.newest
        if newest is None or (newest.stage, newest.step) != self._now:
            slot, began = self._slot(), time.monotonic()
            parts = self._all("save", slot)
            self._confirm(SavedState(stage_index, step, slot), parts, time.monotonic() - began)

    def _confirm(self, state: SavedState, parts: Sequence[Digests], seconds: float) -> None:
        """Every worker has written its rows of a state: now it counts.

        `parts` are the digests of what each wrote; `seconds` those that writing took from the work.
        """
        focus = self._measures and self.store.journal.entropies(state.stage) is not None
        reuse = self._reuse if self.plan.spec.cache else None
        self.store.confirm_state(state, parts, focus=focus, reuse=reuse)
        self.slots.newest = state
        facts = observers.of_save(self.store.layout, state.stage)
        self.caller.say("save", self.plan, state.stage, state.step, seconds=seconds, facts=facts)

    def _keep(self, name: str, slot: int, parts: Sequence[Digests]) -> None:
        """Every worker has written its rows of an array that the plan may have beside states."""
        if name in self.plan.arrays:
            self.store.confirm_kept(name, slot, parts)

    @property
    def _measures(self) -> bool:
        """Whether a stage's first step is measured."""
        focus = self.plan.method.focus
        return focus is not None and focus.scale is not None

    def _spread_entropies(self, stage_index: int) -> None:
        """Hand the entropies that the first step measured to every worker, and to a resume."""
        if not self._measures:
            return
        found = dict(reversed(self._all("entropies")))
        halves = [entropies for place in sorted(found) for entropies in found[place]]
        if all(halves):
            event = {"event": "focus", "stage": stage_index, "entropies": halves}
            self.store.journal.append(event)
            self._all("set_entropies", halves)

    def _call_back(self, stage_index: int, step: int) -> None:
        """Once for each step, even if it had to be done again."""
        made, callback = self.plan, self.caller.callback
        number = sum(stage.num_steps for stage in made.stages[:stage_index]) + step
        if callback is None or number < self._called:
            return
        self._called = number + 1

        def latents() -> torch.Tensor:
            parts = sorted(self._all("latents"), key=lambda part: part[0])
            return torch.cat([latents for _, latents in parts], dim=-2)

        handle = RenderHandle(made.spec, latents)
        callback(handle, number, made.stages[stage_index].levels[step].timestep, {})
        if handle.interrupt:
            self.caller.cancel.set()

    # ---- pixels

    def _decode(self) -> None:
        made, last, written = self.plan, len(self.plan.stages) - 1, self._written
        counts = {"num_blocks": made.num_blocks}
        self._now = (last, made.stages[last].num_steps)
        if self._shown <= last:
            self.caller.say("decode", made, last, blocks=len(written), **counts)
            self._shown = last + 1
        if len(written) == made.num_blocks:
            return
        since = time.monotonic()
        limit = self._timeouts.limit("decode", self._area(last))
        for rank, ids in self.fleet.stream("decode", timeout=limit):
            self.store.journal.append({"event": "block", "ids": ids})
            written.update(ids)
            now = time.monotonic()
            facts = observers.of_blocks(self.store.layout, ids, rank, now - since)
            since = now
            self.caller.say("block", made, last, blocks=len(written), facts=facts, **counts)
            self._stop_if_asked()
        self.caller.trace(self.fleet, made, *self._now)

    def _report_reuse(self) -> None:
        """How much of the network's work the step cache saved, resumed parts included."""
        if self.plan.spec.cache is None:
            return
        stages = self.plan.stages
        counts = [num_cached(self.plan.spec, stage) * stage.num_steps for stage in stages]
        reused, total = self._reuse.reused, sum(counts)
        what = "steps" if total == self.plan.num_steps else "evaluations of the network"
        self.caller.say(
            "note",
            message=f"cache {self.plan.spec.cache}: {reused} of {total} {what} reused all blocks "
            "but the first",
            facts={"reused": reused, "evaluations": total},
        )

    def _stop_if_asked(self) -> None:
        if self.caller.cancel.is_set():
            if not self._is_drawn:
                self._save()
            how = how_to_resume(self.store, self.asked.spec)
            raise RenderCancelledError(f"stopped as asked; {how}")
