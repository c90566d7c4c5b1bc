"""Ranks as real processes for tests."""

from __future__ import annotations

import importlib.util
import pickle
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
import torch.distributed as dist

from frieze.cluster.comm import Comm, distributed
from support import forkserver
from tolerances import AMPLE


def run_processes(
    num_ranks: int, function: Callable[..., Any], *args: Any, timeout: float = AMPLE
) -> list[Any]:
    """function(comm, *args) on `num_ranks` gloo ranks; `function` sits at the top of its file.

    Returns per rank what it returned, the exception it raised, or None if it was killed.
    """
    context = forkserver.context()
    folder = tempfile.mkdtemp()
    source = (function.__code__.co_filename, function.__qualname__)
    readers, processes = [], []
    try:
        for rank in range(num_ranks):
            reader, writer = context.Pipe(duplex=False)
            readers.append(reader)
            world = (rank, num_ranks, f"{folder}/store", timeout)
            process = context.Process(target=_work, args=(writer, world, source, args), daemon=True)
            process.start()
            processes.append(process)
            writer.close()
        return [_outcome(reader, AMPLE + timeout) for reader in readers]
    finally:
        for process in processes:
            process.kill()
            process.join()
            process.close()
        for reader in readers:
            reader.close()
        shutil.rmtree(folder)


def file_store(path: str, num_ranks: int) -> Any:
    """A store in a file, in which ranks of this machine meet."""
    return dist.FileStore(path, num_ranks)


def free_port() -> int:
    """A port of this machine that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _outcome(reader: Connection, seconds: float) -> Any:
    if not wait([reader], seconds):
        return TimeoutError(f"no result after {seconds} s")
    try:
        return reader.recv()
    except EOFError:
        return None


def _work(
    writer: Connection,
    world: tuple[int, int, str, float],
    source: tuple[str, str],
    args: tuple[Any, ...],
) -> None:
    rank, num_ranks, path, timeout = world
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    comm: Comm | None = None
    try:
        function = _load(*source)
        store = file_store(path, num_ranks)
        comm = distributed(rank, num_ranks, store=store, address="127.0.0.1", timeout=timeout)
        outcome: Any = function(comm, *args)
    except BaseException as error:
        if comm is not None:
            comm.abort(f"rank {rank} raised {type(error).__name__}: {error}")
        outcome = error
    writer.send_bytes(pickle.dumps(outcome))
    writer.close()
    if comm is not None:
        comm.close()


def _load(path: str, name: str) -> Callable[..., Any]:
    """The function itself: test files are no importable modules under importlib's import mode."""
    spec = importlib.util.spec_from_file_location("ranks_under_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ranks_under_test"] = module
    spec.loader.exec_module(module)
    function: Callable[..., Any] = getattr(module, name)
    return function
