"""Seconds as people write them."""

from __future__ import annotations

import time


def clock(seconds: float) -> str:
    """Seconds since the epoch as people here write them."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def span(seconds: float) -> str:
    """Seconds as people write them: 0:07, 1:05, 2:03:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
