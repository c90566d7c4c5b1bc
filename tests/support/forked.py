"""A command of the command line in a fork of this process, which has imported everything."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from frieze.renderer.cli.app import main


class Forked:
    """A command in a fork of this process; the part of `subprocess.Popen` that is asked for."""

    def __init__(self, words: tuple[str, ...], place: Path) -> None:
        self.returncode: int | None = None
        self._err = place.with_name(f"{place.name}.err")
        self.pid = os.fork()
        if not self.pid:
            self._run(words, place)

    def _run(self, words: tuple[str, ...], place: Path) -> None:
        """In the child, which ends here."""
        code = 70
        try:
            os.chdir(place)
            os.environ["TMPDIR"] = tempfile.tempdir = str(place / "tmp")
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(os.open(self._err, os.O_WRONLY | os.O_CREAT), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            for stop in (signal.SIGINT, signal.SIGTERM):
                signal.signal(stop, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.argv = ["frieze", *words]
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("fork", timeout)
            else:
                time.sleep(0.002)
        return self.returncode

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def communicate(self, timeout: float = 900.0) -> tuple[str, str]:
        self.wait(timeout)
        err = self._err.read_text() if self._err.exists() else ""
        self._err.unlink(missing_ok=True)
        return "", err
