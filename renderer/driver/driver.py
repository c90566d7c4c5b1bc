"""The driver: a render from spec to finished picture, step by step and in order.

The driver holds no latents and no pixels. It tells the fleet what to do next, writes the journal,
and is the only one who does; so the journal says exactly what can be resumed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from frieze.cluster.comm import CommError
from frieze.cluster.fleet import FleetError, WaitCancelledError, WorkerLostError, cancelled_by

from ..errors import (
    ExportError,
    FriezeError,
    PlanError,
    RenderCancelledError,
    RenderFailedError,
    TakenOverError,
    line,
)
from ..events import Event
from ..files.location import Location, output
from ..inputs.sources import Source
from ..monitoring import observers
from ..monitoring.observers import EventFanout
from ..monitoring.prediction import PredictionThread
from ..monitoring.time_left import whole_cost
from ..outputs import targets as outputs
from ..outputs.background_exports import BackgroundExports
from ..outputs.content_credentials import signing
from ..outputs.signer import Signer
from ..planning import devices
from ..planning.canvas_plan import CanvasPlan
from ..planning.plan import plan
from ..spec.render_spec import RenderSpec, parse
from ..store.integrity.verification import mend, told
from ..store.provenance import alpha_of, color_of
from ..store.store import Store
from ..store.upstream import is_last
from .caller import Caller, RenderResult, StepCallback
from .fingerprint import FILES, conversion_of, fingerprint, identity, run_record
from .initial_pictures import first_frame, keep_sources
from .print_size import of_print
from .recovery import MOST_FAILURES, how_to_resume
from .render_loop import RenderLoop
from .spec_origin import of_store, with_whole_paths
from .store_arrays import store_layout
from .workers import Prompts, Workers

# (plan, who is told) -> the plan to draw.
Settle = Callable[[CanvasPlan, Caller], CanvasPlan]


def unchanged(plan: CanvasPlan, caller: Caller) -> CanvasPlan:
    """The plan as it is."""
    return plan


class Driver:
    """One render or resume, from what is asked for to what is delivered."""

    def __init__(
        self,
        on_event: Callable[[Event], None] | None,
        cancel: threading.Event | None,
        callback: StepCallback | None,
        workers: Workers | None = None,
        settle: Settle = unchanged,
        signer: Signer | None = None,
    ) -> None:
        """`settle` gives the plan that is drawn, where its method asks for what a look shows.

        `signer` signs what is delivered.
        """
        self.signer = signer
        self.watch = EventFanout(on_event)
        self.caller = Caller(self._on_event, cancel, callback)
        self.say = self.caller.say
        self.workers = workers or Workers()
        self.settle = settle
        self.deliveries: BackgroundExports | None = None
        self.began = time.monotonic()
        self.is_working = False  # a step or a decode has begun

    def _on_event(self, event: Event) -> None:
        """Exports are begun with the pixels: before a caller hears of these, and may raise."""
        self.is_working = self.is_working or event.kind in ("stage", "decode")
        if event.kind == "decode" and self.deliveries is not None:
            self.deliveries.begin()
        self.watch(event)

    def render(self, spec: RenderSpec, exports: Sequence[str | Location]) -> RenderResult:
        """Plan, create the store, draw."""
        spec = of_print(with_whole_paths(spec))
        canvas_plan = plan(spec)
        devices.check_here(spec)
        who = signing(self.signer, canvas_plan.sources)
        targets = outputs.targets(spec.out, exports, overwrite=spec.overwrite, signing=who)
        colors = conversion_of(canvas_plan)
        targets = outputs.of_plan(targets, canvas_plan, colors)
        layout = store_layout(canvas_plan)
        outputs.check(targets, layout)
        outputs.check_colors(targets, colors, has_alpha="alpha" in canvas_plan.sources)
        Store.check(targets.store, layout, overwrite=spec.overwrite)
        canvas_plan = self.settle(canvas_plan, self.caller)
        about = identity(canvas_plan)

        def create() -> Store:
            return Store.create(
                targets.store,
                layout,
                fingerprint=fingerprint(about),
                run=run_record(canvas_plan, targets, about),
                overwrite=spec.overwrite,
            )

        with self.watch:
            return self._draw(canvas_plan, create, targets, None)

    def go_on(self, spec: RenderSpec, exports: Sequence[str | Location]) -> RenderResult:
        """What `resume` does if there is a store of this very picture; else what `render` does."""
        spec, main = of_print(with_whole_paths(spec)), output(spec.out, ExportError)
        path = outputs.store_of(main)
        if not Store.exists(path):
            return self.render(spec, exports)
        if self.signer is None:
            outputs.check_unsigned(path, Store.open(path).recorded("outputs"))
        asked = spec.model_dump(mode="json", exclude={"out", "overwrite"})
        wanted = (main, *exports) if main != path else exports
        return self.resume(path, asked, wanted, overwrite=spec.overwrite)

    def resume(
        self,
        path: Location,
        changes: Mapping[str, Any],
        exports: Sequence[str | Location],
        overwrite: bool,
    ) -> RenderResult:
        """Open the store, plan the rest for the workers at hand, draw what is missing."""
        store = Store.open(path, mends=True)
        spec = of_store(parse({**store.recorded("spec"), **changes}), changes)
        sources: dict[str, Source] | None = None
        if not FILES & changes.keys():  # files that are named again count by what they hold now
            begun_from = store.recorded("sources")
            sources = {name: Source(**values) for name, values in begun_from.items()}
        detected = store.run.get("detected")
        canvas_plan = plan(spec, block=store.layout.block[0], sources=sources, detected=detected)
        about = identity(canvas_plan, store.run)
        # A model counts by what is in it, not by where it lies.
        about["picture"]["model"] = store.recorded("picture").get("model")
        store.check_fingerprint(fingerprint(about), about)
        who = signing(self.signer, {} if sources else canvas_plan.sources)
        had = store.recorded("outputs")
        targets = outputs.resumed(path, had, exports, overwrite=overwrite, signing=who)
        colors = color_of(store, targets.main, spec.color, spec.intent)
        outputs.check(targets, store.layout)
        outputs.check_colors(targets, colors, has_alpha=alpha_of(store) is not None)
        with ExitStack() as at_end:
            if not store.is_complete:
                at_end.callback(store.journal.release)
                store.journal.claim()  # what another process draws is not damaged
            for remark in (*targets.left_out, *told(mend(store))):
                self.say("note", message=remark)
            if store.is_complete:
                outputs.finish_live(targets)
                return self._deliver(canvas_plan, targets, 0)
            with self.watch:
                return self._draw(canvas_plan, lambda: store, targets, store)

    def _draw(
        self,
        plan: CanvasPlan,
        open_store: Callable[[], Store],
        targets: outputs.Targets,
        begun: Store | None,
    ) -> RenderResult:
        """Prompts and workers first, then the store: what cannot start leaves nothing behind."""
        about = observers.of_plan(plan, resumes=begun is not None)
        self.say("plan", message=str(plan), facts=about)
        predicting = PredictionThread(plan, whole_cost(plan), self.watch.predict)
        with (
            self._stoppable(plan, begun),
            BackgroundExports(targets, plan.spec) as self.deliveries,
        ):
            with ExitStack() as at_end:
                if begun is not None:  # before what takes long: others see that it goes on
                    self._take(begun, at_end)
                with self.workers.session(plan):
                    if devices.uses_ray(plan.spec):
                        self.watch.measure(targets.store.stem)
                    num_steps = [stage.num_steps for stage in plan.stages]
                    is_drawn = begun is not None and is_last(num_steps, begun.last_state())
                    no_prompt = is_drawn or not plan.num_steps
                    prompts = None if no_prompt else self._prompts(plan, begun)
                    with self.workers.fleet(plan, targets) as fleet:
                        places = fleet.describe()
                        where = "; ".join(map(str, places))
                        self.say("workers", message=where, facts=observers.of_workers(places))
                        store = open_store()
                        if begun is None:
                            self._take(store, at_end)
                        with self._nothing_left(plan, store, targets, begun):
                            outputs.prepare_live(targets, plan, store, anew=begun is None)
                            keep_sources(plan, store)
                            peak = RenderLoop(fleet, plan, store, prompts, self.caller).run()
                    predicting.finish()
                    if (accuracy := self.watch.accuracy()) is not None:
                        self.say("note", message=str(accuracy), facts=accuracy.facts())
                store.finish()
                outputs.finish_live(targets)
            return self._deliver(plan, targets, peak)

    @contextmanager
    def _stoppable(self, plan: CanvasPlan, begun: Store | None) -> Iterator[None]:
        """Waits for workers, and for what they do before a step, end when the caller says so."""
        try:
            with cancelled_by(self.caller.cancel):
                yield
        except WaitCancelledError as error:
            how = f"; {how_to_resume(begun, plan.spec)}" if begun else ", before any work"
            raise RenderCancelledError(f"{error}{how}") from None

    def _take(self, store: Store, at_end: ExitStack) -> None:
        """Become the driver of a store, and keep the log there."""
        at_end.callback(store.journal.release)
        store.journal.claim()
        self.watch.keep(store.path)

    @contextmanager
    def _nothing_left(
        self, plan: CanvasPlan, store: Store, targets: outputs.Targets, begun: Store | None
    ) -> Iterator[None]:
        """An error before the first step leaves no store that was not there before.

        Where the new store took an old one's place, the error is one of the work, with a way on.
        """
        try:
            yield
        except WaitCancelledError as error:
            how = how_to_resume(store, plan.spec)
            raise RenderCancelledError(f"{error}; {how}") from None
        except (RenderCancelledError, RenderFailedError, TakenOverError):
            raise
        except FriezeError as error:
            if begun is not None or self.is_working:
                raise
            if targets.overwrite:
                how = how_to_resume(store, plan.spec)
                raise RenderFailedError(f"{error}; {how}") from error
            outputs.discard_live(targets)
            self.watch.leave()
            store.directory.discard()
            raise

    def _prompts(self, plan: CanvasPlan, begun: Store | None) -> Prompts:
        """The encoded prompts, from a worker that lives no longer than that."""
        image = None
        if "image" in plan.sources:
            image = first_frame(plan, begun)
        self.workers.check_room(plan)
        self.say("note", message="encoding the prompt")
        failed: Exception | None = None
        for _ in range(MOST_FAILURES):
            try:
                return self._with_cuts_told(self.workers.prompts(plan, image))
            except (WorkerLostError, CommError) as error:
                failed = error
                self.say("failure", message=line(error))
            except FleetError as error:
                raise PlanError(str(error)) from error
        raise RenderFailedError(f"the prompt could not be encoded: {failed}") from failed

    def _with_cuts_told(self, prompts: Prompts) -> Prompts:
        """The same; what of them no encoder reads is told, and kept out of the log; and remarks."""
        for cut in dict.fromkeys(cut for each in prompts.values() for cut in each.cuts):
            facts = {
                "cut": {"tokenizer": cut.tokenizer, "limit": cut.limit, "letters": len(cut.text)}
            }
            self.say("note", message=f"warning: {cut}", facts=facts)
        for remark in dict.fromkeys(text for each in prompts.values() for text in each.remarks):
            self.say("note", message=f"warning: {remark}")
        return prompts

    def _deliver(self, plan: CanvasPlan, targets: outputs.Targets, peak: int) -> RenderResult:
        """Exports of the finished store, most of them begun before, and the account of it all."""
        deliveries = self.deliveries or BackgroundExports(targets, plan.spec)
        for target in targets.exports:
            self.say("export", message=str(target))
            deliveries.finish(target)
        seconds = time.monotonic() - self.began
        facts = {"peak_bytes": peak}
        self.say("done", seconds=seconds, message=str(targets.main), facts=facts)
        return RenderResult(
            path=targets.main,
            outputs=targets.all,
            seconds=seconds,
            peak_bytes=peak,
            estimated_bytes=plan.estimate.bytes_per_device if plan.is_estimated else None,
            num_blocks=plan.num_blocks,
        )
