"""Every method keeps the contract; and what is particular to one."""

from __future__ import annotations

import pytest
import torch

from contracts.method import MethodContract
from frieze.renderer import plugins
from frieze.renderer.method import Axis
from frieze.renderer.methods.pi import interpolated


@pytest.mark.parametrize("name", plugins.names("methods"), scope="class")
class TestEveryMethod(MethodContract):
    """The contract, once for each file in the folder."""

    @pytest.fixture(autouse=True)
    def _named(self, name: str) -> None:
        self.name = name


def test_interpolated_positions_never_leave_the_trained_range() -> None:
    axis = Axis("row", 32, 10000.0, trained=16, length=64)
    angles = interpolated(axis, torch.arange(64), 0.5)
    # Frequency 0 is 1 radian a token: its angles are the positions themselves.
    assert angles[:, 0].tolist() == [position / 4 for position in range(64)]
    assert angles[:, 0].max() < 16
