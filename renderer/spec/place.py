"""Sizes, places and ranges in words: WIDTHxHEIGHT in pixels or on paper, X,Y from the top left."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

from ..errors import SpecError, shown
from .units import DPI, LEAST_PIXELS, MOST_PIXELS

OUTPAINTED = 1.0  # strength where a picture is drawn around: of what it leaves free there is none


def left_top(place: str) -> tuple[int, int]:
    """(left, top) of X,Y; ValueError that says what would work."""
    found = re.fullmatch(r"\s*([0-9]{1,7})\s*,\s*([0-9]{1,7})\s*", place)
    if not found:
        raise ValueError(f"{shown(place)} is not X,Y in pixels from the left and the top, as 512,0")
    return int(found[1]), int(found[2])


def _checked(place: str) -> str:
    left, top = left_top(place)
    return f"{left},{top}"


# Millimetres of the units that a print is told in.
UNITS = {"mm": 1.0, "cm": 10.0, "in": 25.4}
MOST_MM = 1e5
FEW_PIXELS = 16
EXACT_MM = 0.005
_LENGTH = r"([0-9]{1,6}(?:\.[0-9]{1,4})?)"
_UNIT = f"({'|'.join(UNITS)})"


def print_mm(size: str) -> tuple[float, float]:
    """(width, height) of a print in mm, of 60x40cm; ValueError that says what would work."""
    found = re.fullmatch(rf"\s*{_LENGTH}\s*[xX\u00d7]\s*{_LENGTH}\s*{_UNIT}\s*", size)
    if not found:
        raise ValueError(
            f"{shown(size)} is not WIDTHxHEIGHT with a unit, as 60x40cm, 600x400mm or 24x16in"
        )
    width, height = (float(side) * UNITS[found[3]] for side in found.group(1, 2))
    if min(width, height) < 1 or max(width, height) > MOST_MM:
        raise ValueError(f"{shown(size)}: a side is between 1 mm and {MOST_MM / 1000:g} m")
    return width, height


def length_mm(length: str) -> float:
    """A length in mm, of 3mm; ValueError that says what would work."""
    found = re.fullmatch(rf"\s*{_LENGTH}\s*{_UNIT}\s*", length)
    if not found:
        raise ValueError(f"{shown(length)} is not a length with a unit, as 3mm, 0.3cm or 0.125in")
    return float(found[1]) * UNITS[found[2]]


def _checked_print(size: str) -> str:
    print_mm(size)
    return size.strip()


def _checked_length(length: str) -> str:
    length_mm(length)
    return length.strip()


Place = Annotated[str, AfterValidator(_checked)]
PrintSize = Annotated[str, AfterValidator(_checked_print)]
Length = Annotated[str, AfterValidator(_checked_length)]


def height_width(size: str, called: str = "size") -> dict[str, int]:
    """{"height": ..., "width": ...} of WIDTHxHEIGHT in pixels; raises `SpecError`."""
    found = re.fullmatch(r"([0-9]{1,9})[xX\u00d7]([0-9]{1,9})", size.strip())
    if not found:
        raise SpecError(
            f"{called} {shown(size)} is not WIDTHxHEIGHT in pixels, for example 1024x768"
        )
    return {"width": int(found[1]), "height": int(found[2])}


def ranged(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """`workers` as "2..8": at least two, and up to eight where and when there is room."""
    workers = values.get("workers")
    if not (isinstance(workers, str) and ".." in workers):
        return values
    least, _, most = workers.partition("..")
    return {**values, "workers": least, "max_workers": most}


def outpainted(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Values with the `strength` that follows from a `place`, where none is given."""
    if values.get("place") is None or "strength" in values:
        return values
    return {**values, "strength": OUTPAINTED}


def print_inches(size: str, bleed: str | None) -> tuple[float, float]:
    """(width, height) of what is drawn for a print: its bleed lies around it; ValueError."""
    edge = 0.0 if bleed is None else length_mm(bleed)
    width, height = ((side + 2 * edge) / UNITS["in"] for side in print_mm(size))
    return width, height


def print_dpi(inches: tuple[float, float], width: float, height: float) -> float:
    """The dots per inch at which so many pixels cover a print: one side to the dot."""
    return min(width / inches[0], height / inches[1])


def print_text(size: str, bleed: str | None, dpi: float, sides: tuple[int, int]) -> str:
    """What so many pixels, (width, height), are of a print, and how far they are off."""
    told = f"{size} at {dpi:.5g} dpi" + (f", {bleed} bleed" if bleed else "")
    lengths = zip(("width", "height"), sides, print_inches(size, bleed), strict=True)
    beyond = {name: (side / dpi - inches) * UNITS["in"] for name, side, inches in lengths}
    off = [f"{mm:.2g} mm of the {name}" for name, mm in beyond.items() if mm > EXACT_MM]
    return f"{told}; {' and '.join(off)} lie beyond it" if off else f"{told}, exactly"


def sized(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Values with the height, width and dpi that follow from their `print`.

    Raises `SpecError` where they contradict it; values that are none are left to others.
    """
    size, bleed = values.get("print"), values.get("bleed")
    if size is None:
        if bleed is not None:
            raise SpecError(f"bleed {shown(bleed)} lies around a print; give one, as print 60x40cm")
        return values
    try:
        inches = print_inches(size, bleed)
        told = {
            name: float(values[name])
            for name in ("width", "height", "dpi")
            if values.get(name) is not None
        }
    except (TypeError, ValueError):
        return values
    if bleed is not None and 2 * length_mm(bleed) > min(print_mm(size)):
        raise SpecError(f"bleed {bleed} is more than half of print {size}; a few mm are usual")
    if not all(map(math.isfinite, told.values())):
        return values
    if sides := [name for name in ("width", "height") if name in told][:2]:
        if len(sides) == 1:
            raise SpecError(f"print {size} and {sides[0]} alone; give both sides, or dpi")
        return {**values, "dpi": _dpi_of(size, inches, told)}
    dpi = told.get("dpi", DPI)
    width, height = (round(side * dpi) for side in inches)
    if min(width, height) < LEAST_PIXELS or max(width, height) > MOST_PIXELS:
        raise SpecError(
            f"print {size} at {dpi:g} dpi is {width} x {height} pixels; "
            f"from {LEAST_PIXELS} to {MOST_PIXELS} a side work"
        )
    return {**values, "width": width, "height": height, "dpi": dpi}


def _dpi_of(size: str, inches: tuple[float, float], told: Mapping[str, float]) -> float:
    """That of a print of so many pixels; raises `SpecError` where shape or dpi are another's."""
    sides = (told["width"], told["height"])
    dpi = print_dpi(inches, *sides)
    has = "{:g}x{:g}".format(*sides)
    if told.get("dpi") in (None, dpi):
        near = [round(side * dpi) for side in inches]
        if told.get("dpi") is None and not _is_near(sides, near):
            raise SpecError(
                f"print {size} and size {has} have different shapes; "
                f"{near[0]}x{near[1]} has the print's"
            )
        return dpi
    if not _is_near(sides, [side * told["dpi"] for side in inches]):
        raise SpecError(
            f"print {size}, size {has} and dpi {told['dpi']:g} contradict each other: "
            f"it would be {dpi:.4g} dpi; leave one out"
        )
    return dpi


def _is_near(sides: Iterable[float], others: Iterable[float]) -> bool:
    """Whether sizes are the same but for what no model could draw: 2 %, or a few pixels."""
    pairs = zip(sides, others, strict=True)
    return all(abs(one - other) <= max(FEW_PIXELS, 0.02 * other) for one, other in pairs)


def overridden(below: Mapping[str, Any], above: Mapping[str, Any]) -> set[str]:
    """Fields of one layer that another replaces without naming them: sizes in other words."""
    sizes, found = {"height", "width", "size"}, set[str]()
    above = {name: value for name, value in above.items() if value is not None}
    if "size" in above:
        found = {"height", "width"}
    elif sizes & above.keys():
        found = {"size"}
    if sizes & above.keys() and "print" not in above:
        return found | {"print", "bleed"}
    is_print = below.get("print") is not None and {"dpi", "bleed"} & above.keys()
    if "print" in above or is_print:
        found |= sizes - above.keys()
    return found
