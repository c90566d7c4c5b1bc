"""First-block cache: a network's later blocks are left out where its first one hardly changed.

What the first block adds to the image tokens is compared with what it added when all blocks were
computed last.  If the mean of the absolute change is at most `threshold` times the mean before, the
other blocks add what all of them together added then (ParaAttention's first-block cache, which is
diffusers' `FirstBlockCacheConfig`, after TeaCache, arXiv 2411.19108).  Both means are those of the
whole canvas, summed in rank order, so that every rank does the same.  Text that goes through the
blocks beside the image is seen by nobody behind them: nothing of it is kept.

Shape suffixes: B batch, S tokens, E features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..comm import Comm
from ..thread_value import ThreadValue
from .hook_sites import HookSites
from .layer_marks import leave_out


@dataclass(frozen=True, eq=False)
class BlockRun:
    """The blocks of a network in the order in which they run: all of its `parts`, one by one.

    A block takes image tokens [B, S, E] as `hidden_states` or first of all, and returns them, or
    (text, them). Where text is joined to them it stands at `text`.
    """

    network: nn.Module
    parts: tuple[str, ...]
    text: Literal["front", "rear"] = "front"

    def blocks(self) -> list[tuple[str, nn.Module]]:
        """Each with its name in the network."""
        return [
            (f"{part}.{name}", block)
            for part in self.parts
            for name, block in self.network.get_submodule(part).named_children()
        ]


class BlockCache:
    """What one rank keeps of one canvas for one prompt, from step to step.

    All ranks of `comm`, which hold the canvas once, run every step together.
    """

    def __init__(self, threshold: float, comm: Comm) -> None:
        self.threshold, self.comm = threshold, comm
        self.is_reused = False  # by the step that runs, or ran last
        self._run: BlockRun | None = None
        self._first: Tensor | None = None  # what the first block added when all were computed
        self._others: Tensor | None = None  # what the others added to it then
        self._returns_text: dict[int, bool] = {}
        self._own, self._at_rear, self._computes = 0, True, True
        self._names: tuple[str, ...] = ()

    @property
    def is_full(self) -> bool:
        """Whether there is something to reuse."""
        return self._others is not None

    def clear(self) -> None:
        """Let go of all that is kept."""
        self._run = self._first = self._others = None

    @contextmanager
    def step(self, run: BlockRun, num_own: int, *, computes: bool) -> Iterator[None]:
        """Inside, on this thread, the blocks reuse what they may; with `computes` nothing.

        `num_own` are the image tokens of this rank's band, as many as at the last step.
        """
        if self._run is not run:
            self.clear()
        self._computes = computes or self._others is None
        self._run, self._own, self._at_rear = run, num_own, run.text == "front"
        self.is_reused = False
        self._names = tuple(name for name, _ in run.blocks())
        with _cache.set(self):
            yield

    def passed(
        self, index: int, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """What a block returns: the first always runs, and says whether the others do."""
        last = len(self._names) - 1
        if index == 0:
            before = self._image(_tokens(args, kwargs))
            output = forward(*args, **kwargs)
            after = self._image(_of(output))
            self._decide(after - before, after)
            return output
        if self.is_reused:
            return self._left_out(index, index == last, args, kwargs)
        output = forward(*args, **kwargs)
        self._returns_text[index] = isinstance(output, tuple)
        if index == last:
            assert self._others is not None  # until now the first block's output
            self._others = self._image(_of(output)) - self._others
        return output

    def _decide(self, added: Tensor, after: Tensor) -> None:
        """Reuse what there is, or keep what this step computes."""
        # Sums over tokens are the band's own here, and added up over the ranks.
        with torch._C.DisableTorchFunction():
            self.is_reused = not self._computes and self._is_near(added)
        if self.is_reused:
            leave_out(tuple(f"{name}." for name in self._names[1:]))
        else:
            self._first, self._others = added, after

    def _is_near(self, added: Tensor) -> bool:
        assert self._first is not None
        sums = [
            (added - self._first).abs().sum(dtype=torch.float64),
            self._first.abs().sum(dtype=torch.float64),
        ]
        change, size = self.comm.all_reduce(torch.stack(sums)).tolist()
        return bool(change <= self.threshold * size)

    def _left_out(
        self, index: int, is_last: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        tokens = _tokens(args, kwargs)
        if is_last:
            assert self._others is not None
            tokens = self._with_image(tokens, self._image(tokens) + self._others)
        if not self._returns_text[index]:
            return tokens
        return kwargs.get("encoder_hidden_states"), tokens

    def _image(self, x_BSE: Tensor) -> Tensor:
        """The band's own tokens, without text and padding that are joined to them."""
        joined = x_BSE.shape[1] - self._own
        return x_BSE[:, joined:] if self._at_rear else x_BSE[:, : self._own]

    def _with_image(self, x_BSE: Tensor, image_BSE: Tensor) -> Tensor:
        joined = x_BSE.shape[1] - self._own
        if self._at_rear:
            return torch.cat([x_BSE[:, :joined], image_BSE], dim=1) if joined else image_BSE
        return torch.cat([image_BSE, x_BSE[:, self._own :]], dim=1) if joined else image_BSE


_cache: ThreadValue[BlockCache] = ThreadValue("blocks")
_sites = HookSites()


def hook_blocks(run: BlockRun) -> None:
    """Let the blocks of a network be left out, each hooked once; outside a step nothing changes."""
    _sites.hook(
        run.network,
        {name: partial(_hook, index, block) for index, (name, block) in enumerate(run.blocks())},
    )


def _hook(index: int, block: nn.Module) -> None:
    # A hook cannot keep a module from running, so its forward is asked through here.
    forward = block.forward

    def passed(*args: Any, **kwargs: Any) -> Any:
        cache = _cache.get()
        if cache is None:
            return forward(*args, **kwargs)
        return cache.passed(index, forward, args, kwargs)

    block.forward = passed


def _tokens(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    tokens: Tensor = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
    return tokens


def _of(output: Any) -> Tensor:
    tokens: Tensor = output[1] if isinstance(output, tuple) else output
    return tokens
