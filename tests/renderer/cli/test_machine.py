"""`frieze doctor`: one finding per line, each with a state and, where it is not ok, a reason."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from frieze.renderer.cli import app, machine
from frieze.renderer.cli.machine import Finding
from frieze.renderer.inputs import host_memory


@pytest.fixture(scope="module")
def findings() -> list[Finding]:
    return list(machine.examine())


def test_every_subject_is_reported(findings: list[Finding]) -> None:
    groups = {finding.group for finding in findings}
    assert groups == {
        "version",
        "machine",
        "plugins",
        "model",
        "cluster",
        "device",
        "attention",
    }


def test_what_is_not_ok_says_why(findings: list[Finding]) -> None:
    assert [f for f in findings if f.state != "ok" and not f.detail] == []


def test_a_finding_is_one_line(findings: list[Finding]) -> None:
    assert not any("\n" in str(finding) for finding in findings)


def test_the_reference_attention_is_always_there(findings: list[Finding]) -> None:
    assert "reference" in {f.name for f in findings if f.group == "attention" and f.state == "ok"}


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("absent", 0), ("missing", 1)])
def test_only_what_is_missing_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, state: str, code: int
) -> None:
    finding = Finding("model", "demo", state, "because")  # type: ignore[arg-type]
    monkeypatch.setattr(machine, "examine", lambda: iter([finding]))
    shown = CliRunner().invoke(app.app, ["doctor", "--json"])
    assert shown.exit_code == code
    assert json.loads(shown.stdout) == {
        "group": "model",
        "name": "demo",
        "state": state,
        "detail": "because",
    }


def test_a_cluster_that_answers_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        assert machine.cluster().state == "ok"
    gone = machine.cluster()
    assert gone.state == "absent"
    assert "does not answer" in gone.detail


def test_a_container_limits_the_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(host_memory, "CGROUP_LIMIT", limit)
    limit.write_text("max\n")
    whole = host_memory.memory_bytes()
    assert 0 < host_memory.free_bytes() <= whole
    limit.write_text("1048576\n")
    assert host_memory.memory_bytes() == host_memory.free_bytes() == 1048576 < whole
