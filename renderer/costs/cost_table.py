"""The costs of a render as the table that `frieze plan` prints."""

from __future__ import annotations

from collections.abc import Sequence

from frieze.kernels.work import Work

from ..spec.units import scaled
from .stage_costs import RenderCost

HEADS = ("cost", "attention", "linear", "autoencoder", "between ranks")


def cost_table(cost: RenderCost) -> list[str]:
    """A line for each stage, one for decoding and one for all.

    Linear are products of matrices and convolutions of the network that denoises; what pictures
    between stages and the last one take is the autoencoder's, or the decoder's in its place.
    """
    rows = [(what, steps, pixels) for what, steps, pixels in cost.rows if (steps + pixels).calls]
    total = sum((steps for _, steps, _ in rows), start=Work())
    rows.append(("all", total, sum((pixels for *_, pixels in rows), start=Work())))
    return _aligned([HEADS, *(_row(*row) for row in rows)])


def _row(what: str, steps: Work, pixels: Work) -> tuple[str, ...]:
    flops = (steps.attention, steps.linear, pixels.flops)
    told = (scaled(each, "FLOP") if each else "-" for each in flops)
    sent = steps.sent + pixels.sent
    return what, *told, scaled(sent, "B") if sent else "-"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Names to the left and figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    places = [f"<{max(8, widths[0])}", *(f">{width}" for width in widths[1:])]
    return ["  ".join(map(format, row, places)) for row in rows]
