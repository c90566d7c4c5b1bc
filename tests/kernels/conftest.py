"""Kernels under the interpreter, and poisoned memory below Python too."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


@pytest.fixture
def poisoned_ops(nan_memory: None) -> Iterator[None]:
    """Memory that torch's own ops allocate starts as NaN as well."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def interpreted() -> Iterator[Callable[..., Any]]:
    """`interpreted(function, *args)` runs it in a process whose Triton interprets its kernels.

    Triton reads the variable while it is imported, so neither this process nor any other that the
    tests start may have it. Fresh memory is NaN there too.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        pool = ProcessPoolExecutor(
            1,
            multiprocessing.get_context("spawn"),
            initializer=torch.use_deterministic_algorithms,
            initargs=(True,),
        )
        pool.submit(torch.set_num_threads, 1).result()

    def run(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return pool.submit(function, *args, **kwargs).result()

    yield run
    pool.shutdown()


class Allocations(TorchDispatchMode):
    """Inside `with`, notes the dtype and element count of every tensor that an op returns."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.dtype, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.seen.append((result.dtype, result.numel()))
        return result


@pytest.fixture
def allocations() -> Callable[[], Allocations]:
    """`with allocations() as watched: ...`, then `watched.seen`."""
    return Allocations
