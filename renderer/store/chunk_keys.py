"""Names of a store's files by what they hold, and their digests by what the journal says.

Zarr v3's default chunk keys, "c/0/1/0", in the order in which digests are put together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

from ..journal.checksums import split
from ..journal.inventory import Inventory
from .layout import BlockId, LatentArray, PyramidLevel, StoreLayout
from .zarr_bucket import Digests

LATENTS = "frieze/latents"


def of_block(layout: StoreLayout, block: BlockId) -> list[tuple[int, str]]:
    """(level, key) of a block's files, one for every level of which it owns a part."""
    *frame, row, column = map(int, block.split("/"))
    return [
        (level.index, _key(*frame, 0, row, column)) for level in layout.levels if level.by_block
    ]


def of_level(layout: StoreLayout, level: PyramidLevel) -> list[str]:
    """Keys of a level's files."""
    sides = (level.height, level.width)
    return list(_keys(layout.extent(*sides), layout.piece(*level.shard)))


def of_slot(array: LatentArray, slot: int) -> list[str]:
    """Keys of the files of a slot."""
    return [_key(slot, *rest) for rest in _indices(array.shape[1:], array.chunk[1:])]


def _keys(shape: Sequence[int], piece: Sequence[int]) -> Iterator[str]:
    return (_key(*index) for index in _indices(shape, piece))


def _indices(shape: Sequence[int], piece: Sequence[int]) -> Iterator[tuple[int, ...]]:
    counts = (math.ceil(length / side) for length, side in zip(shape, piece, strict=True))
    return product(*map(range, counts))


def _key(*index: int) -> str:
    return "/".join(["c", *map(str, index)])


def digests(layout: StoreLayout, held: Inventory, name: str) -> Digests:
    """What the files of an array must be, "0" or "frieze/latents/0"; only those that are known."""
    found = Digests()
    if name.startswith(LATENTS):
        index = [array.name for array in layout.latents].index(name.rpartition("/")[2])
        _add_slots(found, layout, held, index)
        return found
    for block, joined in held.blocks.items():
        for (level, key), digest in zip(of_block(layout, block), split(joined), strict=False):
            if str(level) == name:
                found[key] = digest
    if joined := (held.levels or {}).get(int(name), ""):
        found.update(zip(of_level(layout, layout.levels[int(name)]), split(joined), strict=False))
    return found


def _add_slots(found: Digests, layout: StoreLayout, held: Inventory, index: int) -> None:
    """What the newest state in each slot says, and what is kept beside states."""
    array = layout.latents[index]
    slots = {s.slot: joined for s, joined in held.states.items() if s.stage == index}
    slots |= {slot: joined for (name, slot), joined in held.kept.items() if name == array.name}
    for slot, joined in slots.items():
        found.update(zip(of_slot(array, slot), split(joined), strict=False))
