"""Names and addresses that are this machine's alone."""

from __future__ import annotations

import pytest

from frieze.renderer.connections.loopback import is_loopback


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        *(("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True)),
        *(("localhost", True), ("LOCALHOST", True), ("0.0.0.0", False), ("::", False)),
        *(("127.0.0.1.evil.example", False), ("", False), ("10.0.0.1", False)),
    ],
)
def test_what_leads_to_this_machine_alone(host: str, is_own: bool) -> None:
    assert is_loopback(host) is is_own
