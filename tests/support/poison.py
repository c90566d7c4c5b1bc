"""Fresh uninitialised floating memory that holds NaN, so that reading before writing shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

MAKERS = (
    (torch, "empty"),
    (torch, "empty_like"),
    (torch, "empty_strided"),
    (torch.Tensor, "new_empty"),
    (torch.Tensor, "new_empty_strided"),
)


@contextmanager
def nan_filled() -> Iterator[None]:
    """Inside, what torch.empty and its kin return is filled with NaN."""
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in MAKERS:
            patch.setattr(owner, name, _poisoned(getattr(owner, name)))
        yield


def _poisoned(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def fresh(*args: Any, **kwargs: Any) -> torch.Tensor:
        x = make(*args, **kwargs)
        return x.fill_(float("nan")) if x.is_floating_point() or x.is_complex() else x

    return fresh
