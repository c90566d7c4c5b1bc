"""Units that sizes are told in, and how many bytes a number takes."""

from __future__ import annotations

GIB = 2**30
BYTES_OF = {"uint8": 1, "uint16": 2, "bfloat16": 2, "float16": 2, "float32": 4}
PREFIXES = ("", "k", "M", "G", "T", "P")


def scaled(amount: float, unit: str) -> str:
    """An amount with three digits and the prefix that suits it, at most peta: 48.3 PFLOP."""
    power = 0
    while amount >= 999.5 and power < len(PREFIXES) - 1:
        amount, power = amount / 1000, power + 1
    number = f"{amount:.3g}" if amount < 999.5 else f"{amount:,.0f}"
    return f"{number} {PREFIXES[power]}{unit}"
