"""What operations ask of a device, as numbers; needs no torch."""

from __future__ import annotations

from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class Work:
    """FLOPs by kind, and what else takes time.

    `touched` are the bytes that operations read and write, views nothing; `calls` counts all
    operations, for each takes some time whatever its size, and `convs` the convolutions among
    them, which take more. `sent` are bytes in so many `messages` to other ranks.
    """

    matmul: int = 0
    conv: int = 0
    attention: int = 0
    touched: int = 0
    calls: int = 0
    sent: int = 0
    messages: int = 0
    convs: int = 0

    @property
    def linear(self) -> int:
        """FLOPs that grow as the tokens or pixels do."""
        return self.matmul + self.conv

    @property
    def flops(self) -> int:
        """Of all kinds."""
        return self.linear + self.attention

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: Work) -> Work:
        return self + other.times(-1)

    def times(self, factor: float) -> Work:
        """The same so many times, rounded."""
        return Work(*(round(count * factor) for count in astuple(self)))
