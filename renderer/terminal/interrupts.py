"""Ctrl-C and SIGTERM: how they stop a command, whatever it is doing.

Until a render takes steps, and in commands that take none, the first one ends the process: it
raises KeyboardInterrupt, and what has not ended by itself `GRACE_SECONDS` later (it imports, loads
weights or waits in a library) is ended by force. Once steps are taken the first asks for a stop at
the next one, the second ends the process as above. While it ends, another ends it by force.

By force: processes that this one started are killed, its scratch folders removed and its leases
given back, and one line says so. This file is imported before all others, and so imports little.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import line

if TYPE_CHECKING:
    from .progress import Progress

CANCELLED = 130  # the exit code of what was stopped
STOPS = (signal.SIGINT, signal.SIGTERM)
GRACE_SECONDS = 1.2  # for unwinding: with what follows by force two seconds at most
LEASE_SECONDS = 0.3  # for giving back a lease, by force
# What of the loaded modules may hold something that outlives the process.
UNDO = (
    ("frieze.renderer.files.scratch", "remove_own"),
    ("frieze.renderer.files.lease", "release_all"),
)

_ending = threading.Event()  # the process is to end
_lines = threading.Lock()  # held by whoever says how it ended, once and for all
_since = 0.0  # when it was told to end,
_heard = 0.0  # and when this thread last heard of a signal
_ask: Callable[[int], bool] | None = None  # asks the work to stop; False if it would not heed
_told: Callable[[], str] | None = None  # what is said of an end by force; imports nothing
_is_installed = False


def run(command: Callable[[], object]) -> None:
    """Run a command line, which ends with one line and code 130 if it is stopped."""
    install()
    try:
        command()
    except BaseException as error:
        if _ending.is_set():
            _end(error)
        raise


def is_ending() -> bool:
    """Whether this process was told to end, and does."""
    return _ending.is_set()


def told() -> str:
    """What is said of an end by force, or of one that nobody else says anything of."""
    return _told() if _told else "stopped"


def is_first_word() -> bool:
    """Whether nobody has said yet how this process was stopped; from now on somebody has."""
    return not _is_installed or _lines.acquire(blocking=False)


def install() -> None:
    """Signals are ours from now on, those that come while a library keeps the thread included."""
    global _is_installed
    if _is_installed or threading.current_thread() is not threading.main_thread():
        return
    _is_installed = True
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for stop in STOPS:
        signal.signal(stop, _pressed)
    threading.Thread(target=_watch, args=(reading,), name="frieze-stops", daemon=True).start()
    os.register_at_fork(after_in_child=_leave_to_parent)
    sys.unraisablehook = _unless_ending(sys.unraisablehook)
    threading.excepthook = _unless_ending(threading.excepthook)


@contextmanager
def interruptible(progress: Progress, told: Callable[[], str]) -> Iterator[threading.Event]:
    """Work that looks at the event between its steps, while `progress` says that it takes any.

    SIGTERM, which `ray job stop` and Kubernetes send, counts as a Ctrl-C. `told` is what an end by
    force says.
    """
    global _ask, _told
    cancel = threading.Event()
    notes: list[threading.Thread] = []

    def ask(number: int) -> bool:
        is_first = not cancel.is_set()
        cancel.set()
        if not (is_first and progress.is_stepping):
            return False
        notes.append(threading.Thread(target=_note, args=(progress, number), daemon=True))
        notes[0].start()
        return True

    handlers = {stop: signal.getsignal(stop) for stop in STOPS}
    before = _ask, _told
    is_main = threading.current_thread() is threading.main_thread()
    _ask, _told = ask, told
    if is_main and not _is_installed:  # called from another program
        for stop in STOPS:
            signal.signal(stop, _pressed)
    try:
        yield cancel
    finally:
        if not _ending.is_set():  # else whoever says how it ended still needs them
            _ask, _told = before
        if is_main and not _is_installed:
            _ending.clear()
            _ask, _told = before
            for stop, handler in handlers.items():
                signal.signal(stop, handler)
        for note in notes:  # what was said first is also read first
            note.join(timeout=5)


def _note(progress: Progress, number: int) -> None:
    """In a thread: the signal may have come while the main one was writing to the terminal."""
    from ..events import Event

    again = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    text = f"stopping at the next step; {again} again aborts at once"
    progress(Event("note", message=text))


def _pressed(number: int, frame: FrameType | None) -> None:
    """The handler, on the main thread."""
    global _heard, _since
    _heard = time.monotonic()
    if _ending.is_set():
        _force()
    if _ask is None or not _ask(number):
        _since = _heard
        _ending.set()
        raise KeyboardInterrupt


def _watch(pipe: int) -> None:
    """On a thread of its own: ends by force what has not ended in time."""
    due: float | None = None
    came = 0.0
    while True:
        left = None if due is None else max(0.0, due - time.monotonic())
        if select.select([pipe], [], [], left)[0]:
            os.read(pipe, 4096)
            came = time.monotonic()
            due = due or came + GRACE_SECONDS
        elif _ending.is_set():
            due = _since + GRACE_SECONDS
            if time.monotonic() >= due:
                _force()
        elif _heard < came and (_ask is None or not _ask(signal.SIGINT)):
            _force()  # the main thread has not even heard of it
        else:
            due = None


def _end(error: BaseException) -> NoReturn:
    """What was stopped has unwound, with whatever error: libraries turn it into others.

    The interpreter's own end, which takes half a second with torch, is left out.
    """
    _clear_away()
    if not isinstance(error, SystemExit):
        _say()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(CANCELLED)


def _force() -> NoReturn:
    """End the process from within whatever it does."""
    _ending.set()
    _clear_away()
    _say()
    os._exit(CANCELLED)


def _clear_away() -> None:
    """Nothing outlives the process."""
    _kill_descendants()
    undo = threading.Thread(target=_undo, daemon=True)
    undo.start()
    undo.join(LEASE_SECONDS)


def _undo() -> None:
    for module, function in UNDO:
        if loaded := sys.modules.get(module):
            with suppress(Exception):
                getattr(loaded, function)()


def _say() -> None:
    """One line on stderr, for machines as a last object too; the first who says it is heard."""
    if not is_first_word():
        return
    message = "stopped"
    with suppress(Exception):
        message = line(told())
    if "--json" in sys.argv:
        fields = {"event": "error", "error": "RenderCancelledError", "message": message}
        _write(1, json.dumps({**fields, "exit_code": CANCELLED}))
    # A live display hides the cursor, and has begun a line.
    _write(2, ("\x1b[?25h\n" if os.isatty(2) else "") + f"frieze: {message}")


def _write(descriptor: int, text: str) -> None:
    """Past Python's streams, whose locks another thread may hold."""
    with suppress(OSError):
        os.write(descriptor, f"{text}\n".encode("utf-8", "backslashreplace"))


def _kill_descendants() -> None:
    """Processes that this one started, and those that they started: a Ray, its workers."""
    for _ in range(5):
        found = descendants(os.getpid())
        if not found:
            return
        for pid in found:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def descendants(pid: int) -> list[int]:
    """Living processes below one, parents first; none where the system does not list them."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
                if state != b"Z":
                    children.setdefault(int(parent), []).append(int(name))
    found = list(children.get(pid, ()))
    for each in found:
        found += children.get(each, ())
    return found


def _leave_to_parent() -> None:
    """A forked process is stopped as any other is."""
    if threading.current_thread() is threading.main_thread():
        signal.set_wakeup_fd(-1)
        for stop in STOPS:
            signal.signal(stop, signal.SIG_DFL)


def _unless_ending(hook: Callable[[Any], object]) -> Callable[[Any], object]:
    """A hook that prints tracebacks, but none of what ends because the process does."""

    def told(about: Any) -> object:
        return None if _ending.is_set() else hook(about)

    return told
