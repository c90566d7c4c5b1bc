"""Options of a method: which it has, what they may be, and what a spec says of them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import SpecError, shown

if TYPE_CHECKING:
    from .render_spec import RenderSpec

MOST_NUMBER, MOST_ITEMS = 1e6, 1000  # of any number, and of any list of them
Kind = Literal["switch", "whole", "number", "word", "wholes", "numbers"]
MEANT: Mapping[Kind, str] = {
    "switch": "true or false",
    "whole": "a whole number",
    "number": "a number",
    "word": "a word",
    "wholes": "a list of whole numbers, as 8,9",
    "numbers": "a list of numbers, as 0.5,2",
}
KINDS: Mapping[type, Kind] = {bool: "switch", int: "whole", float: "number", str: "word"}


@dataclass(frozen=True)
class Option:
    """One option: its default, its kind where the default does not tell, and its range.

    `least` and `most` are allowed values, `above` is not; of a list they hold for each item.
    """

    default: Any
    kind: Kind | None = None
    choices: tuple[str, ...] = ()
    least: float | None = None
    above: float | None = None
    most: float | None = None


def read(spec: RenderSpec, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of a method, as the spec gives it or by default.

    `defaults` are `Option`s, or plain values, whose type then is the option's. Lists become
    tuples. Raises `SpecError` that names the option, its value and what would work.
    """
    options = {n: o if isinstance(o, Option) else Option(o) for n, o in defaults.items()}
    if unknown := next((name for name in spec.method_options if name not in options), None):
        raise SpecError(_unknown(spec.method, unknown, tuple(options)))
    given = spec.method_options
    return {
        name: _checked(f"option {name} of {spec.method}", option, given[name])
        if given.get(name) is not None
        else option.default
        for name, option in options.items()
    }


def detects(options: Mapping[str, Any]) -> str | None:
    """Name of the option by which a method asks for detection, if it does.

    Until then it corrects what it would by default.
    """
    return next((name for name in ("mode", "rdfc_mode") if options.get(name) == "detect"), None)


def settled(options: Mapping[str, Any], detected: Sequence[int]) -> dict[str, Any]:
    """A method's options with what was detected in the place of the wish to."""
    name = detects(options)
    if name is None:
        return dict(options)
    kept = {key: value for key, value in options.items() if key != name}
    kept.pop("detector", None)
    return kept | ({"ks": list(detected)} if detected else {name: "none"})


def _unknown(method: str, name: str, known: tuple[str, ...]) -> str:
    if not known:
        return f"method {method} takes no options, but {shown(name)} is given"
    near = difflib.get_close_matches(name[:100], known, n=1, cutoff=0.0)[0]
    return f"method {method} has no option {shown(name)}; the nearest is {near!r}"


def _checked(what: str, option: Option, value: Any) -> Any:
    kind = option.kind or KINDS[type(option.default)]
    listed = kind in ("wholes", "numbers")
    one: Kind = "whole" if kind == "wholes" else "number" if kind == "numbers" else kind
    items = _items(value) if listed else [value]
    found = [_read(item, one) for item in items]
    if len(found) > MOST_ITEMS:
        raise SpecError(f"{what} has {len(found)} items; at most {MOST_ITEMS} work")
    if any(item is None for item in found):
        raise SpecError(f"{what} = {shown(value)} is not {MEANT[kind]}")
    for item in found:
        if allowed := _out_of_range(option, item):
            raise SpecError(f"{what} = {shown(item)}; it must be {allowed}")
    return tuple(found) if listed else found[0]


def _items(value: Any) -> list[Any]:
    """The items of a list, of one item alone, or of a text with commas."""
    if isinstance(value, str):
        return value.split(",")
    return list(value) if isinstance(value, list | tuple) else [value]


def _read(value: Any, kind: Kind) -> Any:
    """The value as its kind, None where it is another; text from a command line is read."""
    if kind == "word" or kind == "switch":
        fits = isinstance(value, str if kind == "word" else bool)
        return value if fits else None
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if not math.isfinite(number) or (kind == "whole" and number != int(number)):
        return None
    return int(number) if kind == "whole" else number


def _out_of_range(option: Option, value: Any) -> str | None:
    """What the value must be, where it is not."""
    if option.choices and value not in option.choices:
        near = difflib.get_close_matches(str(value)[:100], option.choices, n=1, cutoff=0.0)[0]
        return f"{' or '.join(option.choices)} (the nearest is {near!r})"
    if isinstance(value, int | float) and abs(value) > MOST_NUMBER:
        return f"from {-MOST_NUMBER:g} to {MOST_NUMBER:g}"
    if option.least is not None and value < option.least:
        return f"{option.least:g} or more"
    if option.above is not None and value <= option.above:
        return f"more than {option.above:g}"
    if option.most is not None and value > option.most:
        return f"{option.most:g} or less"
    return None
