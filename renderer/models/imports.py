"""Large libraries are imported without a search for garbage: all that they make stays.

Python looks through every object each time that their number has grown by a quarter, which is a
tenth of the time that torch, diffusers and transformers take to import.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Within this no garbage is looked for, unless it is not otherwise either."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
