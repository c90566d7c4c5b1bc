"""A phantom rank receives the shapes that a rank among others receives, and holds as much."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from frieze.cluster.bands import BandMode, Marks, mark
from frieze.cluster.comm import Comm, CommError, Like, axis_comms, phantom, run_threads
from frieze.cluster.layout import Band, Canvas, Halo, Mesh
from frieze.kernels.live_bytes import LiveBytes
from frieze.kernels.meta_attention import tracing
from frieze.kernels.operator_workspace import workspace
from support.banded import Attention
from support.memory import peak_bytes
from tolerances import AMPLE

ROWS = (2, 5, 3)
BANDS = (Band(0, 12), Band(12, 36), Band(36, 56), Band(56, 64))
CANVAS = Canvas(1, 64, 48)
CLOSE = 0.1  # what a plan promises


def _talks(comm: Comm, device: str) -> list[Any]:
    """Every kind of conversation, as shapes."""
    x = torch.zeros(1, 4, ROWS[comm.rank], 6, device=device)
    likes = [Like((2, rank + 1), torch.float32, x.device) for rank in range(comm.size)]
    made = [
        comm.borrow(x, Halo(1, 2), dim=-2),
        comm.give_back(
            torch.zeros(1, 4, 4, 6, device=device),
            [Band(0, 2), Band(2, 7), Band(7, 10)],
            [Band(0, 4), Band(4, 8), Band(6, 10)],
            dim=-2,
        ),
        comm.gather_rows(x, [Band(0, 2), Band(2, 7), Band(7, 10)], [[3], [0, 2, 9], []], dim=2),
        comm.all_reduce(x[0, 0, 0]),
        comm.all_gather(x[:, :, 0]),
        comm.all_to_all([torch.zeros(2, comm.rank + 1, device=device)] * comm.size, likes),
        comm.ring_pass(x, Like.of(x).with_size(2, ROWS[comm.rank - 1])).only(),
        comm.group([comm.rank]).all_gather(x),
    ]
    return [_shapes(value) for value in made]


def _shapes(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype
    return [_shapes(item) for item in value]


def test_it_receives_the_shapes_that_others_would_send() -> None:
    real = run_threads(_talks, 3, "cpu", timeout=AMPLE)
    assert [_talks(phantom(rank, 3), "meta") for rank in range(3)] == real


def test_objects_are_its_own() -> None:
    comm = phantom(1, 3)
    assert comm.all_gather_object("rows") == ["rows"] * 3
    assert comm.broadcast_object("rows", 1) == "rows"
    with pytest.raises(CommError, match="alone"):
        comm.broadcast_object("rows", 0)


def test_a_group_is_a_phantom_too() -> None:
    comms = axis_comms(phantom(5, 8), Mesh(guidance=2, ring=2, ulysses=2))
    assert (comms.world.rank, comms.world.size) == (1, 4)
    assert (comms.ring.rank, comms.ring.size, comms.ulysses.rank, comms.ulysses.size) == (
        0,
        2,
        1,
        2,
    )
    assert comms.ring.device.type == "meta"


def test_a_rank_beyond_the_world_is_refused() -> None:
    with pytest.raises(CommError, match="not one of the 3"):
        phantom(3, 3)


class Net(nn.Module):
    """A halo, a norm over the canvas, attention over the canvas and a halo."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 32, 3, padding=1)
        self.norm = nn.GroupNorm(4, 32)
        self.attention = Attention(num_heads=4)
        self.last = nn.Conv2d(32, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x))
        tokens = self.attention(x.flatten(2).transpose(1, 2))
        return self.last(tokens.transpose(1, 2).unflatten(2, x.shape[2:]))


def _net(device: str) -> tuple[Net, Marks]:
    net = Net().to(device)
    return net, mark(net, lambda name, _: name == "attention")


def _draw(comm: Comm, mesh: Mesh, device: str) -> Callable[[], Any]:
    """This rank's band of one call, its input included."""
    net, marks = _net(device)

    def work() -> None:
        with BandMode(comm, BANDS, mesh=mesh, marks=(marks,), canvas=CANVAS):
            net(torch.zeros(1, 4, BANDS[comm.rank].rows, CANVAS.width, device=device))

    return work


def _needed(rank: int, mesh: Mesh) -> int:
    work = _draw(phantom(rank, len(BANDS)), mesh, "meta")
    with LiveBytes(workspace) as live, tracing("cpu"):
        work()
    return live.peak.num_bytes


def _peak(comm: Comm, mesh: Mesh) -> int:
    """In a process of its own, counted by torch's allocator."""
    work = _draw(comm, mesh, "cpu")
    work()
    return peak_bytes(work)


@pytest.mark.parametrize("mesh", [Mesh(ring=4), Mesh(ring=2, ulysses=2)], ids=["ring", "ulysses"])
def test_it_needs_what_a_rank_in_a_process_of_its_own_needs(
    mesh: Mesh, gloo_world: Callable[..., list[Any]]
) -> None:
    measured = gloo_world(len(BANDS), _peak, mesh)
    needed = [_needed(rank, mesh) for rank in range(len(BANDS))]
    assert needed == pytest.approx(measured, rel=CLOSE)
    # Bands differ, so the wrong rank's is no answer.
    assert needed[3] != pytest.approx(measured[1], rel=CLOSE)


def test_control_without_other_ranks_it_is_too_little(
    gloo_world: Callable[..., list[Any]],
) -> None:
    """Neither keys and values that travel, nor halos, nor merges of what they answer."""
    net, _ = _net("meta")
    with LiveBytes(workspace) as live, tracing("cpu"):
        net(torch.zeros(1, 4, BANDS[1].rows, CANVAS.width, device="meta"))
    measured = gloo_world(len(BANDS), _peak, Mesh(ring=4))[1]
    assert live.peak.num_bytes < (1 - CLOSE) * measured


def test_what_is_in_flight_is_told_apart() -> None:
    with LiveBytes(workspace) as live, tracing("cpu"):
        comm = phantom(1, len(BANDS), receiving=lambda: live.part("in flight"))
        _draw(comm, Mesh(ring=4), "meta")()
    assert 0 < live.peak.parts["in flight"] < live.peak.num_bytes == sum(live.peak.parts.values())
