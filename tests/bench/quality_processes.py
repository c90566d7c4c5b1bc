"""Tasks of a benchmark in as many processes as are asked for, until a time."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

import torch

T = TypeVar("T")


def run(work: Callable[[T], str], todo: Iterator[T], jobs: int, until: float) -> None:
    """Do all tasks, or as many as begin before `until` on the monotonic clock.

    What `work` says of each is printed.
    """
    if jobs == 1:
        for task in todo:
            if time.monotonic() > until:
                return
            print(work(task), flush=True)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, spawn, torch.set_num_threads, (1,)) as pool:
        futures = [pool.submit(work, task) for task in todo]
        for done in as_completed(futures):
            print(done.result(), flush=True)
            if time.monotonic() > until:
                pool.shutdown(cancel_futures=True)
                return
