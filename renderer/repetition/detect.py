"""Which frequencies of a picture are to be corrected, found by attention or by drafts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..driver.caller import Caller
from ..planning.canvas_plan import CanvasPlan
from ..planning.plan import plan
from . import drafts, logit_amplitudes
from .attention_probe import attend, can_attend
from .drafts import Tell


def examine(plan: CanvasPlan, detector: str | None, tell: Tell) -> dict[str, Any]:
    """What attention and drafts say of a plan's picture; by default both, unless drafts take long.

    By "attention" `Amplitudes` of each axis, by "rounds" those of drafts.
    """
    found: dict[str, Any] = {}
    if detector == "attention" or (detector is None and can_attend(plan)):
        found["attention"] = attend(plan, tell)
    if detector == "draft" or not found or (detector is None and drafts.are_cheap(plan)):
        found["rounds"] = drafts.detect(plan, tell)
    elif detector is None:
        tell("no drafts at this size, where they take long; --detector draft makes them")
    return found


def report(found: Mapping[str, Any]) -> list[str]:
    """What was found, in lines, with plots."""
    lines = []
    if "attention" in found:
        lines += logit_amplitudes.report(found["attention"])
    if "rounds" in found:
        lines += drafts.report(found["rounds"])
    return lines


def settled(canvas_plan: CanvasPlan, caller: Caller) -> CanvasPlan:
    """The plan with the frequencies that are found to repeat, if its method asks for them."""
    detection = canvas_plan.method.detection
    if detection is None:
        return canvas_plan

    def tell(text: str) -> None:
        caller.say("note", message=text)

    if detection.detector == "attention":
        shares = attend(canvas_plan, tell)
        lines, detected = logit_amplitudes.report(shares), logit_amplitudes.corrected(shares)
    else:
        rounds = drafts.detect(canvas_plan, tell, caller.cancel)
        lines, detected = drafts.report(rounds), rounds[-1].corrected
    for text in lines:
        tell(text)
    return plan(canvas_plan.spec, sources=canvas_plan.sources, detected=detected)
