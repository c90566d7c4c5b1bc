"""How much a client may ask for."""

from __future__ import annotations

from dataclasses import dataclass

MOST_PICTURES = 10  # of a request
MOST_PROMPT = 32_000  # letters
MOST_PRIORITY = 100  # and least, with a minus


@dataclass(frozen=True)
class Limits:
    """`pixels` and `steps` of a picture, `queue` in jobs, `body` in bytes, `wait` in seconds.

    `priority` is the highest that a client may ask for.
    """

    pixels: int = 8192 * 8192
    steps: int = 200
    queue: int = 100
    body: int = 64 * 2**20
    wait: float = 3600.0
    priority: int = MOST_PRIORITY
