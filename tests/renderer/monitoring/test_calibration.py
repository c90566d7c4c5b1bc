"""Rates are measured on the machine that is here."""

from __future__ import annotations

from frieze.renderer.monitoring.calibration import rates


def test_a_calibration_finds_rates_of_this_machine() -> None:
    found = rates("cpu", "float32", 0.01)
    figures = (found.matmul, found.conv, found.attention, found.copied, found.link)
    times = (found.call, found.banded_call, found.conv_call, found.block, found.state)
    assert min(*figures, *times) > 0
    assert min(found.banded_conv_call, found.message) >= 0  # beyond operations, maybe nothing
