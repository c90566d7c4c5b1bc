"""Failures of a render: counted where it stands, and its way on from them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from frieze.cluster.comm import CommError
from frieze.cluster.fleet import Fleet, FleetError, WorkerLostError

from ..errors import RenderFailedError, StoreError, line
from ..journal.inventory import SavedState
from ..monitoring import commands, observers
from ..planning.canvas_plan import CanvasPlan
from ..spec.render_spec import RenderSpec
from ..store.store import Store
from ..store.upstream import is_last
from .caller import Caller
from .state_slots import StateSlots

# So many failures in a row at one place end a render.
MOST_FAILURES = 3
# What may go better the next time; a worker's own exceptions would only be raised again.
PASSING = (WorkerLostError, CommError, StoreError)

# (stage, steps of it that are done)
Standing = tuple[int, int]


class Recovery:
    """What becomes of the errors of one render."""

    def __init__(
        self, fleet: Fleet, store: Store, slots: StateSlots, caller: Caller, spec: RenderSpec
    ) -> None:
        """`spec` is what was asked for, which the command that finishes the render names."""
        self._fleet, self._store, self._slots = fleet, store, slots
        self._caller, self._spec = caller, spec
        self._failures: list[tuple[int, int, int]] = []  # where each of those in a row was

    def count(self, error: Exception, plan: CanvasPlan, now: Standing, num_blocks: int) -> None:
        """Tell an error that may pass; raise one of too many in a row where the render stands."""
        place = (*_standing(self._slots.newest), num_blocks)
        self._failures = [*(p for p in self._failures if p == place), place]
        if len(self._failures) < MOST_FAILURES:
            self._caller.say("failure", plan, *now, message=line(error))
            return
        if isinstance(error, StoreError):
            raise error
        raise self.failed(error, f", {MOST_FAILURES} times in a row") from error

    def recover(self, failed: Exception, plan: CanvasPlan, now: Standing) -> None:
        """A new group of the workers that are left and of those that took the lost ones' places."""
        began = time.monotonic()
        self._slots.give_up()
        try:
            self._fleet.recover()
        except WorkerLostError:
            raise
        except FleetError as error:
            raise self.failed(failed, f"; {error}") from error
        stage, step = _standing(self._slots.newest)
        num_steps, size = [each.num_steps for each in plan.stages], self._fleet.size
        is_drawn = is_last(num_steps, self._slots.newest)
        again = "what was not decoded" if is_drawn else f"step {step + 1} of stage {stage + 1}"
        who = "1 worker goes" if size == 1 else f"{size} workers go"
        redone = 0 if is_drawn else steps_redone(num_steps, now, (stage, step))
        self._caller.say(
            "recovered",
            plan,
            stage,
            step,
            seconds=time.monotonic() - began,
            message=f"{line(failed)}; {who} on with {again}",
            facts={"steps_redone": redone, **observers.of_fleet(self._fleet)},
        )

    def failed(self, error: Exception, more: str = "") -> RenderFailedError:
        """The error that ends the render, with the way to finish it."""
        return RenderFailedError(f"{error}{more}; {how_to_resume(self._store, self._spec)}")


def steps_redone(num_steps: Sequence[int], now: Standing, newest: Standing) -> int:
    """Steps that were done, or under way, and will be done again from the newest state."""
    return sum(num_steps[: now[0]]) + now[1] + 1 - sum(num_steps[: newest[0]]) - newest[1]


def how_to_resume(store: Store, spec: RenderSpec) -> str:
    """The end of every message about an unfinished store."""
    return f"finish with: {commands.resume(store.path, spec, store.run['outputs'])}"


def _standing(state: SavedState | None) -> Standing:
    return (state.stage, state.step) if state else (0, 0)
