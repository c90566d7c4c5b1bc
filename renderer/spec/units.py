"""Units that sizes are told in, bounds of what is asked for, and bytes that a number takes."""

from __future__ import annotations

GIB = 2**30
BYTES_OF = {"uint8": 1, "uint16": 2, "bfloat16": 2, "float16": 2, "float32": 4}
# Bounds of what is asked for: wide enough for any picture, and what they let through can be counted
# with. More pixels than this a side are a wall 88 m wide at 300 dpi.
LEAST_PIXELS, MOST_PIXELS, MOST_FRAMES = 16, 2**20, 2**20
MOST_WORKERS = 4096
MOST_SECONDS = 2e6  # 23 days; poll(2) takes no more
LEAST_DPI, DPI, MOST_DPI = 1.0, 300.0, 1e5  # DPI where none is asked for
PREFIXES = ("", "k", "M", "G", "T", "P")


def scaled(amount: float, unit: str) -> str:
    """An amount with three digits and the prefix that suits it, at most peta: 48.3 PFLOP."""
    power = 0
    while amount >= 999.5 and power < len(PREFIXES) - 1:
        amount, power = amount / 1000, power + 1
    number = f"{amount:.3g}" if amount < 999.5 else f"{amount:,.0f}"
    return f"{number} {PREFIXES[power]}{unit}"
