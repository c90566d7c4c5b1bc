"""What a render needs, to go on from a state, beside that state: arrays that earlier work kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..journal.inventory import SavedState
from .layout import StoreLayout


def is_last(num_steps: Sequence[int], state: SavedState | None) -> bool:
    """Whether a state is that of all steps, and only pixels are missing."""
    last = (len(num_steps) - 1, num_steps[-1]) if num_steps else None
    return state is not None and (state.stage, state.step) == last


def needed_beside(
    layout: StoreLayout, num_steps: Sequence[int], state: SavedState | None
) -> Iterator[tuple[str, int]]:
    """(array, slot) of all that is read on the way from a state, None for the very start.

    `num_steps` are those of each stage. What will be written anew on that way is not named.
    """
    stage, step = (state.stage, state.step) if state else (0, 0)
    is_drawn = is_last(num_steps, state)
    has_given = any(array.name == "given" for array in layout.latents)
    for array in layout.latents:
        number, _, kind = array.name.rpartition("-")
        of = int(number) if number.isdigit() else -1
        match kind:
            case "init" if of < 0:
                slots = [0] if state is None else []
            case "init":  # redrawn in part: in each stage, and as pixels that stay
                slots = [0] if of >= stage and not (is_drawn and has_given) else []
            case "given" | "alpha":
                slots = [0]
            case "upscale":  # what is enlarged, until the first round is done; or redrawn
                is_needed = state is None if num_steps and num_steps[0] else stage == 0
                slots = [0] if is_needed else []
            case "picture":  # of the last round, while this one enlarges it
                slots = [0] if 0 <= of == stage - 1 and not num_steps[stage] else []
            case "image":  # the frame to animate: as the encoder sees it, and at each stage's size
                slots = [0] if of >= stage or (of < 0 and not is_drawn) else []
            case "mask" | "edits" | "control":  # of each stage that they act in
                slots = [0] if of >= stage and not is_drawn else []
            case "guide":
                slots = [0] if state and of == stage and not is_drawn else []
            case "clean":
                slots = list(range(_num_kept(of, stage, step, array.shape[0])))
                slots = [] if is_drawn else slots
            case _:
                slots = []
        yield from ((array.name, slot) for slot in slots)


def _num_kept(of: int, stage: int, step: int, num_slots: int) -> int:
    """Slots of stage `of`'s x0 that were filled, and that it or the next stage still needs."""
    if of == stage:
        return step
    return num_slots if of == stage - 1 else 0
