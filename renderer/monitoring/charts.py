"""Numbers of a log as the corners of a chart's rectangles; the page draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PARTS = ("start", "compute", "exchange", "save", "decode", "driver")
WIDTH, HEIGHT = 880.0, 200.0
MOST_BARS = 240


@dataclass(frozen=True)
class Box:
    """One rectangle, and what it says when pointed at."""

    part: str
    x: float
    y: float
    width: float
    height: float
    says: str


@dataclass(frozen=True)
class Chart:
    """Rectangles within `width` x `height`, marks of the y axis as (y, text), and a legend."""

    boxes: Sequence[Box]
    marks: Sequence[tuple[float, str]]
    dividers: Sequence[tuple[float, str]]
    legend: Sequence[tuple[str, str]]
    width: float = WIDTH
    height: float = HEIGHT


def bars(lines: Sequence[Mapping[str, Any]]) -> Chart:
    """One bar for each step, in the order they were done, cut by where its seconds went.

    Where there are more steps than bars fit, a bar is the mean of a few.
    """
    steps = [line for line in lines if line["event"] == "step"]
    group = max(1, math.ceil(len(steps) / MOST_BARS))
    groups = [steps[first : first + group] for first in range(0, len(steps), group)]
    parts = [_mean(members) for members in groups]
    top = _round_up(max((sum(each.values()) for each in parts), default=0.0))
    if not parts or not top:
        return Chart([], [], [], [])
    room = WIDTH / len(parts)
    boxes: list[Box] = []
    for number, (members, each) in enumerate(zip(groups, parts, strict=True)):
        foot = HEIGHT
        for part, seconds in each.items():
            height = seconds / top * HEIGHT
            foot -= height
            says = f"step {members[0]['step']}, {part}: {seconds:.3f} s"
            boxes.append(Box(part, number * room, foot, max(room - 1.5, room * 0.7), height, says))
    marks = [(HEIGHT * (1 - share), f"{top * share:.3g} s") for share in (0.0, 0.5, 1.0)]
    stages = [members[0]["stage"] for members in groups]
    dividers = [
        (number * room, f"stage {stage}")
        for number, stage in enumerate(stages)
        if number == 0 or stage != stages[number - 1]
    ]
    totals = {part: sum(each[part] for each in parts) for part in parts[0]}
    return Chart(boxes, marks, dividers, [(part, "") for part, total in totals.items() if total])


def shares(parts: Mapping[str, float]) -> Chart:
    """One long bar: how much of the seconds each part took."""
    total = sum(parts.values())
    if not total:
        return Chart([], [], [], [])
    boxes, at = [], 0.0
    for part, seconds in parts.items():
        width = seconds / total * WIDTH
        if width:
            boxes.append(Box(part, at, 0.0, width, 28.0, f"{part}: {seconds:.2f} s"))
        at += width
    legend = [(part, f"{s:.2f} s, {100 * s / total:.0f} %") for part, s in parts.items() if s]
    return Chart(boxes, [], [], legend, height=28.0)


def _mean(steps: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    count = len(steps)
    return {
        "compute": sum(step.get("compute", step["seconds"]) for step in steps) / count,
        "exchange": sum(step.get("exchange", 0.0) for step in steps) / count,
        "driver": sum(step.get("driver", 0.0) for step in steps) / count,
        "save": sum(step.get("saving", 0.0) for step in steps) / count,
    }


def _round_up(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    if value <= 0:
        return 0.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)
