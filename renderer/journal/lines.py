"""The lines of a journal: what each kind of event must say, and the checksum of each line.

Lines from before checksums have none, and say less; kinds that nobody here reads may say anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from . import checksums

Count = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(ge=0, le=2**53, allow_inf_nan=False)]
Sums = Annotated[str, Field(pattern=rf"^([0-9a-f]{{{checksums.LENGTH}}})*$")]
BlockId = Annotated[str, Field(pattern=r"^[0-9]{1,9}(/[0-9]{1,9}){1,2}$")]
Text = Annotated[str, Field(max_length=2**12)]


class Event(BaseModel):
    """Any event: its kind, and the seconds since the epoch at which it was written."""

    model_config = ConfigDict(strict=True, extra="allow")

    event: Text
    time: Seconds = 0.0


class BlockEvent(Event):
    """Blocks are whole on disk; `ids` maps each to the digests of its files, one per level."""

    id: BlockId | None = None
    ids: dict[BlockId, Sums] | list[BlockId] = Field(default_factory=list)


class StateEvent(Event):
    """All latents of `stage` after `step` steps are in `slot`, whose files have these digests.

    With `focus` they go on from what the stage's first step measured: a "focus" event. Where steps
    may reuse an earlier one, each half of the guidance was `computed` last after so many steps, and
    so many evaluations of the render were `reused` until then.
    """

    stage: Count
    step: Count
    slot: Count
    sums: Sums = ""
    focus: bool = False
    computed: list[Count] = Field(default_factory=list)
    reused: Count = 0


class FocusEvent(Event):
    """What a stage's first step measured, for each half of the guidance: {layer: per head}."""

    stage: Count
    entropies: list[dict[Text, list[float]]]


class KeptEvent(Event):
    """A slot of another array of latents is whole."""

    array: Text
    slot: Count
    sums: Sums


class FinishedEvent(Event):
    """The pyramid is whole; `levels` are those that no block owns, by their number."""

    levels: dict[Annotated[str, Field(pattern=r"^[0-9]{1,2}$")], Sums] = Field(default_factory=dict)


class LostEvent(Event):
    """What was whole is no longer: damage that was found, and is drawn again."""

    blocks: list[BlockId] = Field(default_factory=list)
    levels: list[Count] = Field(default_factory=list)
    states: list[Annotated[tuple[Count, Count, Count], Strict(False)]] = Field(default_factory=list)
    kept: list[Annotated[tuple[Text, Count], Strict(False)]] = Field(default_factory=list)
    lines: list[Text] = Field(default_factory=list)


class BatchEvent(Event):
    """A batch's items and a digest of each."""

    items: dict[str, str]


class ItemEvent(Event):
    """How an item of a batch stands; one that is done says more."""

    name: str
    state: Literal["queued", "running", "done", "failed"]


class DoneItemEvent(ItemEvent):
    """What came of it."""

    outputs: list[str]
    width: Count
    height: Count
    seconds: Seconds
    retries: Count


KINDS: Mapping[str, type[Event]] = {
    "block": BlockEvent,
    "state": StateEvent,
    "focus": FocusEvent,
    "kept": KeptEvent,
    "finished": FinishedEvent,
    "lost": LostEvent,
    "batch": BatchEvent,
    "item": ItemEvent,
}


def event_of(value: Any, *, is_sealed: bool) -> dict[str, Any] | None:
    """The event that a line's JSON value is, without its checksum; None where it is damaged.

    With `is_sealed` every line has a checksum.
    """
    if not isinstance(value, dict):
        return None
    if (is_sealed or checksums.NAME in value) and not checksums.is_whole(value):
        return None
    event = {name: part for name, part in value.items() if name != checksums.NAME}
    try:
        _kind(event).model_validate(event)
    except (ValidationError, RecursionError):
        return None
    return event


def _kind(event: Mapping[str, Any]) -> type[Event]:
    name = event.get("event")
    if name == "item" and event.get("state") == "done":
        return DoneItemEvent
    return KINDS.get(name, Event) if isinstance(name, str) else Event
