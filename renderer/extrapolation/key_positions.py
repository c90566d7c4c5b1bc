"""Keys nearer than they are: rectified rotary positions (CineScale of 2026, arXiv 2508.15774).

The tokens of a canvas are cut into tiles of queries. For each tile keys near it stay where they
are, and all farther ones are drawn in, so that no query of the tile is farther from a key than the
model knows. Queries, frames and text stay as they are.
Shape suffixes: N tiles along an axis, S tokens along it, F pairs of a head's channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..models.positions import frequencies
from .method import KeyPolicy

if TYPE_CHECKING:
    from torch import Tensor

    from frieze.cluster.attention import KeyTurns

    from ..checkpoints.facts import ModelFacts
    from ..models.positions import RotaryAxis
    from ..spec.render_spec import RenderSpec


def known_grid(spec: RenderSpec, facts: ModelFacts) -> dict[str, int]:
    """Rows and columns of tokens of the trained area in the picture's shape, or of the square."""
    side, aspect = facts.training_size / facts.latent.unit, spec.height / spec.width
    stretch = 1.0 if facts.square else math.sqrt(aspect)
    return {"row": max(1, round(side * stretch)), "column": max(1, round(side / stretch))}


def rectified(known: Mapping[str, int], tile: float, keep: float) -> KeyPolicy:
    """Keys within `known` tokens less one of every query, by axis.

    Tiles are `tile` of the known tokens long, and keys so near as `keep` of these stay in place.
    """

    def policy(axes: Sequence[RotaryAxis]) -> KeyTurns | None:
        from frieze.cluster.attention import KeyTurns

        named = {axis.name: axis for axis in axes}
        lengths = {name: named[name].length for name in known if name in named}
        if all(lengths[name] <= known[name] for name in lengths):
            return None
        cut, angles = {}, {}
        for name, length in lengths.items():
            cut[name] = tiles(length, max(1, round(tile * known[name])))
            places = [
                warped(length, each, known[name] - 1, round(keep * known[name]))
                for each in cut[name]
            ]
            angles[name] = _angles(axes, name, places)
        return KeyTurns(cut["row"], cut["column"], angles["row"], angles["column"])

    return policy


def tiles(length: int, size: int) -> tuple[range, ...]:
    """An axis cut into runs of `size` tokens; the last may be shorter."""
    return tuple(range(start, min(length, start + size)) for start in range(0, length, size))


def warped(length: int, tile: range, most: int, threshold: int) -> Tensor:
    """Where the tokens of an axis stand for a tile of queries: float32 [S] of whole numbers.

    None is farther than `most` from a query. Up to `threshold` tokens on either side of the tile
    stay in place, less where the tile leaves no room; farther ones lie evenly in what is left.
    Rounded half to even and in float32, as in the released code.
    """
    import torch

    first, last, end = tile[0], tile[-1], length - 1
    room = most - (last - first)
    low = first - min(threshold, first, room)
    high = last + min(threshold, end - last, room)
    lowest, highest = max(0, last - most), min(end, first + most)
    place_S = torch.arange(length, dtype=torch.float32)
    if low > 0:
        place_S[:low] = lowest + place_S[:low] / low * (low - lowest)
    if high < end:
        far = place_S[high + 1 :]
        place_S[high + 1 :] = high + (far - high) / (end - high) * (highest - high)
    return place_S.round().clamp(0, end)


def _angles(axes: Sequence[RotaryAxis], name: str, places: Sequence[Tensor]) -> Tensor:
    """What is to be added to the angles of tokens at their own places, float64 [N, S, F]."""
    import torch

    place_NS = torch.stack(list(places)).double()
    moved_NS = place_NS - torch.arange(place_NS.shape[1], dtype=torch.float64)
    parts = [
        moved_NS[..., None] * frequencies(axis, moved_NS) * float(axis.name == name)
        for axis in axes
    ]
    return torch.cat(parts, dim=-1)
