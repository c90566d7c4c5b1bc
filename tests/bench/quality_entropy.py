"""How evenly the denoiser's attention is spread in a row of the quality benchmark."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch

from bench.quality_rows import Cell, Row, Settings, rendered, spec_of
from frieze.cluster.attention import AttentionChange
from frieze.cluster.strategies import bands
from frieze.renderer.errors import RenderCancelledError


def entropy(row: Row, cell: Cell, settings: Settings, seed: int) -> float | None:
    """Mean entropy of attention in nats over layers and heads, on the second step of one stage.

    The second, because methods that concentrate heads measure on the first. None for rows that are
    no direct render.
    """
    if not row.is_direct or settings.steps < 2:
        return None
    entropies: list[torch.Tensor] = []

    def after(handle: Any, step: int, *_: Any) -> None:
        if step == 0:
            entropies.clear()
        handle.interrupt = step == 1

    spec = spec_of(row, cell, settings, seed)
    with _measured(entropies), contextlib.suppress(RenderCancelledError):
        rendered(spec, callback_on_step_end=after)
    return float(torch.cat([x.flatten() for x in entropies]).mean()) if entropies else None


@contextlib.contextmanager
def _measured(entropies: list[torch.Tensor]) -> Iterator[None]:
    """Keep the entropies of every attention of the denoiser, as whatever method changes it."""
    original = bands.band_mode

    def measuring(*args: Any, modifier: Any = None, **kwargs: Any) -> Any:
        return original(*args, modifier=_Probe(modifier, entropies), **kwargs)

    bands.band_mode = measuring
    try:
        yield
    finally:
        bands.band_mode = original


class _Probe:
    """Does what another modifier does, if there is one, and measures where that does not."""

    def __init__(self, inner: Any, entropies: list[torch.Tensor]) -> None:
        self.inner, self.entropies = inner, entropies

    def change(self, layer: str, q_BHSD: Any, k_BHSD: Any) -> AttentionChange:
        change = AttentionChange(q_BHSD, k_BHSD)
        if self.inner is not None:
            change = self.inner.change(layer, q_BHSD, k_BHSD)
        if change.probe is not None:
            return change
        return dataclasses.replace(change, probe=self.entropies.append, pooled=None)
