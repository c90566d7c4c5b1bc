"""What `frieze batch` does: draws a batch before the user's eyes, and says how it ended."""

from __future__ import annotations

import json as jsonlib
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import closing, redirect_stdout
from typing import Any

from . import roster
from .batch import batch
from .errors import RenderCancelledError, RenderFailedError, SpecError
from .homes import is_taken
from .locations import location
from .stopping import interruptible


def run(jobs: str, out: str, options: Mapping[str, Any], *, json: bool, quiet: bool) -> None:
    """Draw a file of items into a folder; raises `RenderFailedError` if any failed."""
    shown = roster.choose(json=json, quiet=quiet)
    # Ray says on stdout that a worker died; stdout is for results.
    with shown, interruptible(shown) as cancel, redirect_stdout(sys.stderr):
        drawn = batch(jobs, out=out, on_event=shown.item, cancel=cancel, **options)
        try:
            with closing(drawn):
                states = Counter(result.state for result in drawn)
        except KeyboardInterrupt:
            raise RenderCancelledError(
                f"aborted; go on with: frieze batch {jobs} --out {out} --continue"
            ) from None
    folder = location(out, SpecError)
    report, sheet = folder / "report.json", folder / "contact.png"
    files = [str(path) for path in (report, sheet) if is_taken(path)]
    if json:
        print(jsonlib.dumps({"event": "result", **states, "files": files}))
    elif not quiet:
        print(*files, sep="\n")
    if states["failed"]:
        raise RenderFailedError(
            f"{states['failed']} of {states.total()} items failed, as {report} says; "
            f"try them again with: frieze batch {jobs} --out {out} --continue"
        )
