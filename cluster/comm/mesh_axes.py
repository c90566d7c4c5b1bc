"""The communicators of a rank's mesh axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..layout import Mesh
from .collectives import Comm


@dataclass(frozen=True)
class AxisComms:
    """One rank's communicators: all ranks of its canvas, and those of its two attention axes."""

    world: Comm
    ring: Comm
    ulysses: Comm


def axis_comms(comm: Comm, mesh: Mesh | None = None) -> AxisComms:
    """The communicators of `comm.rank` on a mesh over all ranks of `comm`; default: one ring.

    Ranks that differ in the guidance coordinate draw canvases of their own.  Called by all ranks;
    ValueError if the mesh has another number of ranks.
    """
    mesh = Mesh(ring=comm.size) if mesh is None else mesh
    if mesh.world_size != comm.size:
        raise ValueError(f"mesh {mesh} has {mesh.world_size} ranks, but there are {comm.size}")
    guidance, _, _ = mesh.coordinates(comm.rank)
    canvas = [mesh.rank(guidance, r, u) for r in range(mesh.ring) for u in range(mesh.ulysses)]
    return AxisComms(
        world=_group(comm, canvas),
        ring=_group(comm, mesh.group(comm.rank, "ring")),
        ulysses=_group(comm, mesh.group(comm.rank, "ulysses")),
    )


def _group(comm: Comm, ranks: Sequence[int]) -> Comm:
    return comm if len(ranks) == comm.size else comm.group(ranks)
