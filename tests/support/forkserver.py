"""The server that tests fork processes from: it has imported once what each would take seconds for.

`Program` is a program of Python in such a process, where what is tested is that there is another
one, not how it starts.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from multiprocessing.context import ForkServerContext
from types import TracebackType
from typing import Any, TextIO

PRELOADED = [
    "torch",
    "pytest",
    "hypothesis",
    "diffusers.pipelines.flux.pipeline_flux",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.models.transformers.transformer_wan",
    "frieze.cluster.comm.worlds",
    "frieze.kernels.meta_attention",
    "frieze.renderer.cli.app",
    "frieze.renderer.driver.driver",
    "frieze.renderer.worker.shard",
]


def context() -> ForkServerContext:
    """Of processes that are forked from the server."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOADED)
    return found


class Program:
    """The part of `subprocess.Popen` that tests ask for, of `python -c code words`.

    What it prints comes through `stdout`, what it is told goes through `stdin`. Environment and
    folder are this process's at the start.
    """

    def __init__(self, code: str, *words: str) -> None:
        reader, writer = context().Pipe(duplex=False)
        asked, asking = context().Pipe(duplex=False)
        place = (dict(os.environ), os.getcwd())
        self._process: Any = context().Process(
            target=_run, args=(asked, writer, *place, code, words), daemon=True
        )
        self._process.start()
        self.pid: int = self._process.pid
        self.stdout: TextIO = os.fdopen(os.dup(reader.fileno()))
        self.stdin: TextIO = os.fdopen(os.dup(asking.fileno()), "w")
        for end in (reader, writer, asked, asking):
            end.close()

    @property
    def returncode(self) -> int | None:
        """As of `Popen`: less than 0 is the signal that ended it."""
        code: int | None = self._process.exitcode
        return code

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("python -c", timeout or 0.0)
        return self.returncode

    def send_signal(self, sign: signal.Signals) -> None:
        os.kill(self.pid, sign)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it printed and was not read yet, once it has ended."""
        self.stdin.close()
        with self.stdout as out:
            told = out.read()
        self.wait(timeout)
        return told, ""

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.kill()
        self.stdin.close()
        self.stdout.close()
        self._process.join()


def _run(
    asked: Any,
    writer: Any,
    environment: dict[str, str],
    folder: str,
    code: str,
    words: tuple[str, ...],
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    os.dup2(asked.fileno(), 0)
    os.dup2(writer.fileno(), 1)
    asked.close()
    writer.close()
    sys.stdin, sys.stdout, sys.argv = os.fdopen(0), os.fdopen(1, "w"), ["-c", *words]
    try:
        exec(compile(code, "-c", "exec"), {"__name__": "__main__"})
    finally:
        sys.stdout.flush()
