"""A render in a process of its own that decodes without end, so that it is caught in the middle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.forkserver import Program

# It tells its first blocks and no others.
CODE = """
import sys, threading
sys.path.insert(0, {tests!r})
from support.drawing import small_spec
from frieze.renderer import render
from frieze.renderer.worker.shard import Shard
{before}

decode = Shard.decode

def begun(self):
    ids = next(told := decode(self))
    if self.comm.rank == 0:
        yield ids
    threading.Event().wait()
    yield from told

Shard.decode = begun
render(
    small_spec({out!r}, **{fields!r}),
    on_event=lambda event: print(event.to_json(), flush=True),
)
"""


def stalled_render(out: Path | str, *, before: str = "", **fields: Any) -> Program:
    """The process, which prints its events; `before` are lines that it runs before it draws."""
    tests = str(Path(__file__).parents[1])
    code = CODE.format(tests=tests, out=str(out), fields=fields, before=before)
    return Program(code)


def wait_for(process: Program, kind: str) -> None:
    """Read events until one of this kind; fails if the render ends before."""
    for line in process.stdout:
        if f'"event": "{kind}"' in line:
            return
    raise AssertionError(f"the render ended with {process.wait()} before any {kind!r}")
