"""One step of a method's last stage, held still so that it can be measured beside another's.

A stand is one worker's shard, taken through the stages before and through the first step of the
last one, as a render takes it; its steps then start from the same latents however often they run.
Shape suffixes: B batch, C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from frieze.cluster.comm import solo
from frieze.renderer.driver.fingerprint import fingerprint, identity, run_record
from frieze.renderer.driver.store_arrays import store_layout
from frieze.renderer.outputs import targets as outputs
from frieze.renderer.planning.plan import plan
from frieze.renderer.spec.render_spec import RenderSpec
from frieze.renderer.store.store import Store
from frieze.renderer.worker import prompt_encoding
from frieze.renderer.worker.shard import Shard

# What an attention modifier and a guide do at a step.
MODIFIED = ("begin", "on_tokens", "change")
GUIDED = ("entered", "corrected", "grid")


class Stand:
    """A method's shard at the second step of its last stage; `folder` is for its store."""

    def __init__(self, spec: RenderSpec, folder: Path) -> None:
        self.plan = made = plan(spec.model_copy(update={"out": str(folder / "stand.zarr")}))
        targets, about = outputs.targets(made.spec.out, (), overwrite=False), identity(made)
        run, layout = run_record(made, targets, about), store_layout(made)
        mark = fingerprint(about)
        Store.create(targets.store, layout, fingerprint=mark, run=run, overwrite=False)
        self.shard = Shard(made, targets.store, None)
        self.shard.join(solo())
        self.shard.set_plan(made)
        self.shard.load()
        for prompt, encoded in prompt_encoding.encode_prompts(made, None).items():
            self.shard.condition(encoded, prompt)
        for index in range(len(made.stages)):
            self._stage(index)
        self._first = self._drawn[0]
        self._second = self._drawn[1]

    def _stage(self, index: int) -> None:
        """A stage from its beginning; all of it, or of the last one the first step."""
        shard, last = self.shard, index == len(self.plan.stages) - 1
        if index - 1 in self.plan.painted:
            shard.decode_stage()
        shard.begin(index, 0 if index else None)
        before = self._kept()
        shard.step(0)
        _, halves = shard.entropies()
        if all(halves):
            shard.set_entropies(halves)
        self._drawn = (before, self._kept())
        if not last:
            for step in range(1, self.plan.stages[index].num_steps):
                shard.step(step)
            shard.save(0)

    def _kept(self) -> tuple[Any, ...]:
        return self.shard.x_BCTHW.clone(), self.shard.history, self.shard.guiding.memory

    def step(self, index: int = 1) -> float:
        """Seconds of the last stage's first or a later step, from the same latents.

        Of the processor, or on a GPU by the clock, until its work is done.
        """
        x, history, memory = self._second if index else self._first
        self.shard.x_BCTHW = x.clone()
        self.shard.history, self.shard.guiding.memory = history, memory
        clock = time.process_time if self.shard.device.type == "cpu" else time.perf_counter
        began = clock()
        self.shard.step(index)
        return clock() - began

    @property
    def x_BCTHW(self) -> Tensor:
        """What the last step left."""
        return self.shard.x_BCTHW

    def work(self) -> Work:
        """What a later step does, counted."""
        with Work() as work:
            self.step()
        return work

    def own_share(self, repeats: int) -> float:
        """The part of a later step that is spent in the method's own functions, the median one."""
        clock = _Clock()
        method = self.plan.method
        positions = clock.timed(method.positions)
        self.shard.network.plan = dataclasses.replace(
            self.plan, method=dataclasses.replace(method, positions=positions)
        )
        owners: list[tuple[Any, str]] = [
            *((t, name) for t in self.shard.network.modifiers for name in MODIFIED),
            *((self.shard.guiding, name) for name in GUIDED),
        ]
        for owner, name in owners:
            setattr(owner, name, clock.timed(getattr(owner, name)))
        shares = sorted(clock.share(self.step) for _ in range(repeats))
        for owner, name in owners:
            delattr(owner, name)
        self.shard.network.plan = self.plan
        return shares[len(shares) // 2]


class _Clock:
    """Processor seconds of some functions, none of which calls another."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.process_time() - began

        return call

    def share(self, step: Callable[[], float]) -> float:
        self.seconds = 0.0
        whole = step()
        return self.seconds / whole


class Work(TorchDispatchMode):
    """Counts calls of the tensor library and the bytes that they read and write, views aside."""

    def __init__(self) -> None:
        super().__init__()
        self.num_calls, self.num_bytes = 0, 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        if not function.is_view:
            self.num_calls += 1
            touched = [x for x in tree_leaves((args, kwargs, made)) if isinstance(x, Tensor)]
            self.num_bytes += sum(x.numel() * x.element_size() for x in touched)
        return made


def one_thread() -> None:
    """Processor time is that of one thread, without gradients."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
