"""The costs of a render as the table that `frieze plan` prints."""

from __future__ import annotations

from collections.abc import Sequence

from frieze.kernels.work import Work

from ..spec.units import scaled
from .prediction import Prediction
from .stage_costs import RenderCost

HEADS = ("cost", "attention", "linear", "autoencoder", "between ranks")


def cost_table(cost: RenderCost, predicted: Prediction | None = None) -> list[str]:
    """A line for each stage, one for decoding and one for all; seconds where they are predicted.

    Linear are products of matrices and convolutions of the network that denoises; what pictures
    between stages and the last one take is the autoencoder's, or the decoder's in its place.
    """
    rows = [_row(*row) for row in cost.rows]
    rows.append(
        _row(
            "all",
            sum((steps for _, steps, _ in cost.rows), start=Work()),
            sum((pixels for *_, pixels in cost.rows), start=Work()),
        )
    )
    if predicted is None:
        return _aligned([HEADS, *rows])
    seconds = [stage.total for stage in predicted.stages]
    seconds += [predicted.decode, predicted.total]
    head = "seconds, at least" if predicted.is_limit else "seconds"
    timed = [(*row, f"{each:.3g}") for row, each in zip(rows, seconds, strict=True)]
    return _aligned([(*HEADS, head), *timed])


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
