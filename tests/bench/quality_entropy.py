"""How evenly the denoiser's attention is spread in a row of the quality benchmark."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from bench.quality_rows import Cell, Row, Settings, rendered, spec_of
from frieze.cluster.strategies import bands
from frieze.renderer.errors import RenderCancelledError


def entropy(row: Row, cell: Cell, settings: Settings, seed: int) -> float | None:
    """Mean entropy of attention in nats over layers and heads, on the second step of one stage.

    The second, because methods that concentrate heads measure on the first. None for rows that are
    no direct render.
    """
    if not row.is_direct or settings.steps < 2:
        return None
    heard: list[torch.Tensor] = []

    def after(handle: Any, step: int, *_: Any) -> None:
        if step == 0:
            heard.clear()
        handle.interrupt = step == 1

    spec = spec_of(row, cell, settings, seed)
    with _listening(heard), contextlib.suppress(RenderCancelledError):
        rendered(spec, callback_on_step_end=after)
    return float(torch.cat([x.flatten() for x in heard]).mean()) if heard else None


@contextlib.contextmanager
def _listening(heard: list[torch.Tensor]) -> Iterator[None]:
    """Keep the entropies of every attention of the denoiser, as whatever method tunes it."""
    original = bands.band_mode

    def listening(*args: Any, tuning: Any = None, **kwargs: Any) -> Any:
        return original(*args, tuning=_Ear(tuning, heard), **kwargs)

    bands.band_mode = listening
    try:
        yield
    finally:
        bands.band_mode = original


class _Ear:
    """A tuning that does what another one does, if there is one, and listens when that does not."""

    def __init__(self, inner: Any, heard: list[torch.Tensor]) -> None:
        self.inner, self.heard = inner, heard

    def tuned(self, layer: str, q_BHSD: Any, k_BHSD: Any) -> Any:
        return self.inner.tuned(layer, q_BHSD, k_BHSD) if self.inner else (q_BHSD, k_BHSD)

    def factor(self, num_tokens: int) -> float:
        return self.inner.factor(num_tokens) if self.inner else 1.0

    @property
    def is_measuring(self) -> bool:
        return self.inner is not None and self.inner.probe is not None

    @property
    def probe(self) -> Any:
        return self.inner.probe if self.is_measuring else lambda _, x_BH: self.heard.append(x_BH)

    @property
    def pooled(self) -> Any:
        return self.inner.pooled if self.is_measuring else None

    @property
    def decay(self) -> Any:
        return self.inner.decay if self.inner else None
