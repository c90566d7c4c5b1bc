"""The driver: a render from spec to finished picture, step by step and in order.

The driver holds no latents and no pixels. It tells the fleet what to do next, writes the journal,
and is the only one who does; so the journal says exactly what can be resumed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from frieze.cluster.bands import BandError
from frieze.cluster.comm import CommError
from frieze.cluster.fleet import Fleet, FleetError, WorkerLostError

from . import devices, outputs, watch
from .errors import ExportError, PlanError, RenderCancelledError, RenderFailedError
from .events import Event, Kind
from .initial import first_frame, keep_sources
from .launching import Crew, Prompts, on_ray
from .locations import Location, location
from .plan import CanvasPlan, plan
from .record import FILES, fingerprint, identity, run_record, store_layout
from .render import RenderHandle, RenderResult, StepCallback
from .sources import Source
from .spec import RenderSpec, parse
from .store import Store
from .watch import Watch


class Drive:
    """One render or resume: who listens, when to stop, who works, and the steps in order."""

    def __init__(
        self,
        on_event: Callable[[Event], None] | None,
        cancel: threading.Event | None,
        callback: StepCallback | None,
        crew: Crew | None = None,
    ) -> None:
        self.watch = Watch(on_event)
        self.cancel = cancel or threading.Event()
        self.callback = callback
        self.crew = crew or Crew()
        self.began = time.monotonic()

    def render(self, spec: RenderSpec, exports: Sequence[str | Path]) -> RenderResult:
        """Plan, create the store, draw."""
        made = plan(spec)
        devices.check_here(spec)
        targets = outputs.targets(spec.out, exports, overwrite=spec.overwrite)
        layout = store_layout(made)
        outputs.check(targets, layout)
        Store.check(targets.store, layout, overwrite=spec.overwrite)

        about = identity(made)

        def create() -> Store:
            return Store.create(
                targets.store,
                layout,
                fingerprint=fingerprint(about),
                run=run_record(made, targets, about),
                overwrite=spec.overwrite,
            )

        with self.watch:
            return self._draw(made, create, targets, None)

    def go_on(self, spec: RenderSpec, exports: Sequence[str | Path]) -> RenderResult:
        """What `resume` does if there is a store of this very picture; else what `render` does."""
        path = outputs.store_of(spec.out)
        if not Store.exists(path):
            return self.render(spec, exports)
        asked = spec.model_dump(mode="json", exclude={"out", "overwrite"})
        wanted = (spec.out, *exports) if location(spec.out, ExportError) != path else exports
        return self.resume(path, asked, wanted, overwrite=False)

    def resume(
        self,
        path: Location,
        changes: Mapping[str, Any],
        exports: Sequence[str | Path],
        overwrite: bool,
    ) -> RenderResult:
        """Open the store, plan the rest for the workers at hand, draw what is missing."""
        store = Store.open(path)
        spec = parse({**store.run["spec"], **changes})
        sources: dict[str, Source] | None = None
        if not FILES & changes.keys():  # files that are named again count by what they hold now
            begun_from = store.run["sources"]
            sources = {name: Source(**values) for name, values in begun_from.items()}
        made = plan(spec, block=store.layout.block[0], sources=sources)
        about = identity(made)
        Store.open(path, fingerprint=fingerprint(about), run=about)
        targets = outputs.resumed(path, store.run["outputs"], exports, overwrite=overwrite)
        outputs.check(targets, store.layout)
        if store.is_complete:
            outputs.finish_live(targets)
            return self._deliver(made, targets, 0)
        with self.watch:
            return self._draw(made, lambda: store, targets, store)

    def _draw(
        self,
        made: CanvasPlan,
        open_store: Callable[[], Store],
        targets: outputs.Targets,
        begun: Store | None,
    ) -> RenderResult:
        """Prompts and workers first, then the store: what cannot start leaves nothing behind."""
        about = watch.of_plan(made, resumes=begun is not None)
        self._say("plan", message=str(made), facts=about)
        with self.crew.session(made):
            if on_ray(made.spec):
                self.watch.measure(targets.store.stem)
            prompts = None if drawn(made, begun) else self._prompts(made, begun)
            with self.crew.fleet(made, targets) as fleet:
                places = fleet.describe()
                where = "; ".join(map(str, places))
                self._say("workers", message=where, facts=watch.of_workers(places))
                store = open_store()
                store.journal.claim()
                self.watch.keep(store.path)
                outputs.prepare_live(targets, made)
                if begun is None or not begun.last_state():
                    keep_sources(made, store)
                peak = self._work(fleet, made, store, prompts)
        store.finish()
        outputs.finish_live(targets)
        return self._deliver(made, targets, peak)

    def _work(self, fleet: Fleet, made: CanvasPlan, store: Store, prompts: Prompts | None) -> int:
        """All steps and all pixels; returns the largest worker's peak memory in bytes."""
        try:
            self._denoise(fleet, made, store, prompts)
            self._decode(fleet, made, store)
            return max(fleet.all("memory"))
        except (FleetError, CommError, BandError) as error:
            raise RenderFailedError(f"{error}; {how_to_resume(store)}") from error

    def _prompts(self, made: CanvasPlan, begun: Store | None) -> Prompts:
        """The encoded prompts, from a worker that lives no longer than that."""
        image = None
        if "image" in made.sources:
            image = first_frame(made, begun)
        self._say("note", message="encoding the prompt")
        try:
            return self.crew.prompts(made, image)
        except (WorkerLostError, CommError) as error:
            raise RenderFailedError(f"the prompt could not be encoded: {error}") from error
        except FleetError as error:
            raise PlanError(str(error)) from error

    def _deliver(self, made: CanvasPlan, targets: outputs.Targets, peak: int) -> RenderResult:
        """Exports from the finished store, and the account of it all."""
        for target in targets.exports:
            self._say("export", message=str(target))
            outputs.export(targets.store, target, overwrite=targets.overwrite, dpi=made.spec.dpi)
        seconds = time.monotonic() - self.began
        facts = {"peak_bytes": peak}
        self._say("done", seconds=seconds, message=str(targets.main), facts=facts)
        return RenderResult(
            path=targets.main,
            outputs=targets.all,
            seconds=seconds,
            peak_bytes=peak,
            estimated_bytes=made.estimate.bytes_per_device if made.is_estimated else None,
            num_blocks=made.num_blocks,
        )

    def _denoise(
        self, fleet: Fleet, made: CanvasPlan, store: Store, prompts: Prompts | None
    ) -> None:
        fleet.all("load")
        state = store.last_state()
        if prompts is None:
            assert state is not None
            fleet.all("restore", state.stage, state.slot, state.step)
            return
        for prompt, conditioning in prompts.items():
            fleet.all("condition", conditioning, prompt)
        first_stage = state.stage if state else 0
        slot = state.slot if state else 0
        for stage_index in range(first_stage, len(made.stages)):
            if state and state.stage == stage_index:
                fleet.all("restore", stage_index, state.slot, state.step)
                first_step = state.step
                if measured := store.journal.entropies(stage_index):
                    fleet.all("concentrate", measured)
            else:
                if stage_index - 1 in made.painted:
                    fleet.all("paint")
                fleet.all("begin", stage_index, slot if stage_index else None)
                first_step = 0
            slot = self._stage(fleet, made, store, stage_index, first_step, slot)

    def _stage(
        self,
        fleet: Fleet,
        made: CanvasPlan,
        store: Store,
        stage_index: int,
        first_step: int,
        slot: int,
    ) -> int:
        """All steps of one stage; returns the slot that holds its last state."""
        stage = made.stages[stage_index]
        unit = made.facts.latent.downscale
        size = f"{stage.canvas.width * unit}x{stage.canvas.height * unit}"
        self._say("stage", made, stage_index, first_step, message=size)
        for step in range(first_step, stage.num_steps):
            began = time.monotonic()
            reports = fleet.all("step", step)
            facts = watch.of_step(reports, time.monotonic() - began)
            if step == 0:
                self._concentrate(fleet, made, store, stage_index)
            last = step + 1 == stage.num_steps
            if last or (step + 1) % made.spec.save_every == 0:
                slot = 1 - slot
                self._save(fleet, made, store, (stage_index, step + 1), slot)
            seconds = max(report.seconds for report in reports)
            self._say("step", made, stage_index, step + 1, seconds=seconds, facts=facts)
            self._call_back(fleet, made, stage_index, step)
            self._stop_if_asked(store)
        return slot

    def _save(
        self, fleet: Fleet, made: CanvasPlan, store: Store, at: tuple[int, int], slot: int
    ) -> None:
        """The state after a step; it counts once the journal has it."""
        began, (stage_index, step) = time.monotonic(), at
        fleet.all("save", slot)
        event = {"event": "state", "stage": stage_index, "step": step, "slot": slot}
        store.journal.append(event)
        facts = watch.of_save(store.layout, stage_index)
        seconds = time.monotonic() - began
        self._say("save", made, stage_index, step, seconds=seconds, facts=facts)

    def _concentrate(self, fleet: Fleet, made: CanvasPlan, store: Store, stage_index: int) -> None:
        """Hand the entropies that the first step measured to every worker, and to a resume."""
        focus = made.method.focus
        if focus is None or focus.scale is None:
            return
        found = dict(reversed(fleet.all("entropies")))
        halves = [entropies for place in sorted(found) for entropies in found[place]]
        if all(halves):
            event = {"event": "focus", "stage": stage_index, "entropies": halves}
            store.journal.append(event)
            fleet.all("concentrate", halves)

    def _decode(self, fleet: Fleet, made: CanvasPlan, store: Store) -> None:
        written = set(store.done())
        last = len(made.stages) - 1
        self._say("decode", made, last, num_blocks=made.num_blocks, blocks=len(written))
        since = time.monotonic()
        for rank, ids in fleet.stream("decode"):
            store.journal.append({"event": "block", "ids": ids})
            written.update(ids)
            now = time.monotonic()
            facts = watch.of_blocks(store.layout, ids, rank, now - since)
            since, counts = now, {"num_blocks": made.num_blocks, "blocks": len(written)}
            self._say("block", made, last, facts=facts, **counts)
            self._stop_if_asked(store)

    def _call_back(self, fleet: Fleet, made: CanvasPlan, stage_index: int, step: int) -> None:
        if self.callback is None:
            return

        def latents() -> torch.Tensor:
            parts = sorted(fleet.all("latents"), key=lambda part: part[0])
            return torch.cat([latents for _, latents in parts], dim=-2)

        handle = RenderHandle(made.spec, latents)
        before = sum(stage.num_steps for stage in made.stages[:stage_index])
        timestep = made.stages[stage_index].levels[step].timestep
        self.callback(handle, before + step, timestep, {})
        if handle.interrupt:
            self.cancel.set()

    def _stop_if_asked(self, store: Store) -> None:
        if self.cancel.is_set():
            raise RenderCancelledError(f"stopped as asked; {how_to_resume(store)}")

    def _say(
        self,
        kind: Kind,
        made: CanvasPlan | None = None,
        stage_index: int = 0,
        step: int = 0,
        **more: Any,
    ) -> None:
        if made is not None:
            more |= {
                "stage": stage_index + 1,
                "num_stages": len(made.stages),
                "step": step,
                "num_steps": made.stages[stage_index].num_steps,
            }
        self.watch(Event(kind=kind, **more))


def how_to_resume(store: Store) -> str:
    """The end of every message about an unfinished store."""
    return f"finish with: frieze resume {store.path}"


def drawn(made: CanvasPlan, begun: Store | None) -> bool:
    """Whether all steps are done, and only pixels are missing."""
    state = begun.last_state() if begun else None
    last = (len(made.stages) - 1, made.stages[-1].num_steps)
    return state is not None and (state.stage, state.step) == last
