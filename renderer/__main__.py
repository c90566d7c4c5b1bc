"""`frieze` and `python -m frieze.renderer`: the command line, which can be stopped from here on.

To import this file is to start it: before anything else is imported there is nothing to undo, and
a stop is one line.
"""

import os
import signal
import sys


def _stopped(number: int, frame: object) -> None:
    """What a signal does until `interrupts` takes over."""
    if "--json" in sys.argv:
        about = b'"error": "RenderCancelledError", "message": "stopped", "exit_code": 130'
        os.write(1, b'{"event": "error", ' + about + b"}\n")
    os.write(2, b"frieze: stopped\n")
    os._exit(130)


for _stop in (signal.SIGINT, signal.SIGTERM):
    signal.signal(_stop, _stopped)

from .terminal import interrupts  # noqa: E402


def main() -> None:
    """Entry point of the console script `frieze`."""
    interrupts.run(_command_line)


def _command_line() -> None:
    from .cli import app

    app.main()


if __name__ == "__main__":
    main()
