"""Renders that end before they are done: stopped or killed at their first event of a kind."""

from __future__ import annotations

import signal
import threading

import pytest

from frieze.renderer import Event, RenderCancelledError, RenderSpec, render
from support.forkserver import Program
from tolerances import AMPLE

PROGRAM = """
import os, signal, sys
from frieze.renderer import RenderSpec, render
spec = RenderSpec.model_validate_json(sys.argv[1])
kill = lambda event: event.kind == sys.argv[2] and os.kill(os.getpid(), signal.SIGKILL)
render(spec, on_event=kill)
"""


def stop_at(spec: RenderSpec, kind: str) -> None:
    """Draw a spec, and set its cancel event there."""
    cancel = threading.Event()

    def listen(event: Event) -> None:
        if event.kind == kind:
            cancel.set()

    with pytest.raises(RenderCancelledError):
        render(spec, on_event=listen, cancel=cancel)


def kill_at(spec: RenderSpec, kind: str) -> None:
    """Draw a spec in a process of its own, which kills itself there."""
    drawing = Program(PROGRAM, spec.model_dump_json(), kind)
    drawing.communicate(timeout=AMPLE)
    assert drawing.returncode == -signal.SIGKILL
