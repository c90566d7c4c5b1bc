"""Frames a second as the fraction that files of clips hold."""

from __future__ import annotations

from fractions import Fraction

NTSC = Fraction(1000, 1001)


def rate(fps: float | None) -> Fraction:
    """Frames a second as a fraction; 23.976, 29.97 and 59.94 are what NTSC means by them."""
    assert fps is not None
    broadcast = round(fps / NTSC) * NTSC
    if abs(fps - broadcast) < 5e-4:
        return broadcast
    return Fraction(fps).limit_denominator(1001)
