"""A real head of a Ray cluster for tests: started by `ray start`, on ports and in a folder of its
own, with token authentication on, and ended by its process group alone."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.processes import free_port

BIN = Path(sys.executable).parent
START_SECONDS = 120.0
JOB_SECONDS = 240.0
PORTS = (
    *("--port", "--dashboard-port", "--dashboard-agent-listen-port"),
    *("--dashboard-agent-grpc-port", "--ray-client-server-port", "--metrics-export-port"),
)


@dataclass(frozen=True)
class Head:
    """A head that runs: its folder, its node's address, and how to reach it."""

    folder: Path
    node: str
    port: int
    url: str
    environment: Mapping[str, str]

    def start(self, *words: str, **changes: str | None) -> subprocess.Popen[str]:
        """`frieze` or `ray` as a process that may use this cluster; None takes a variable away."""
        environment = {**self.environment, **changes}
        return subprocess.Popen(
            [BIN / words[0], *words[1:]],
            env={name: value for name, value in environment.items() if value is not None},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, **changes: str | None) -> tuple[int, str, str]:
        """The same to its end: exit code, stdout, stderr."""
        with self.start(*words, **changes) as process:
            out, err = process.communicate(timeout=JOB_SECONDS)
        return process.returncode, out, err

    def submit(self, *words: str, **changes: str | None) -> tuple[int, str, str]:
        """`frieze submit` to this head."""
        return self.run("frieze", "submit", "--address", self.url, *words, **changes)

    def ask(self, path: str) -> Any:
        """What the job server answers, as JSON."""
        token = Path(self.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        request = urllib.request.Request(self.url + path)
        request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def job(self, name: str) -> dict[str, Any]:
        """Ray's record of a job."""
        found: dict[str, Any] = self.ask(f"/api/jobs/{name}")
        return found

    def log(self, name: str) -> str:
        """What a job has printed."""
        return str(self.ask(f"/api/jobs/{name}/logs")["logs"])

    def ended(self, name: str) -> dict[str, Any]:
        """Ray's record of a job, once it has ended."""
        wait_until(lambda: self.job(name)["status"] in ("STOPPED", "SUCCEEDED", "FAILED"))
        return self.job(name)


def wait_until(is_true: Callable[[], object], seconds: float = JOB_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, f"waited {seconds:g} s"
        time.sleep(0.2)


@contextlib.contextmanager
def ray_head(
    node: str = "127.0.0.2", num_cpus: int = 4, inside: Sequence[str] = (), **more: str
) -> Iterator[Head]:
    """Starts a head whose node has the address `node`, on this machine alone.

    `inside` are words before the command, such as those that enter a network namespace; `more`
    are variables of its environment.
    """
    # Sockets lie below it, and their paths may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="fz", dir="/tmp"))
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    environment = {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(folder),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        **more,
    }
    ports = {flag: free_port() for flag in PORTS}
    url = f"http://{node}:{ports['--dashboard-port']}"
    command = [
        *(*inside, str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats"),
        *(f"--temp-dir={folder / 'r'}", f"--node-ip-address={node}", f"--dashboard-host={node}"),
        *("--min-worker-port=0", "--max-worker-port=0", f"--num-cpus={num_cpus}"),
        *("--object-store-memory=100000000", *(f"{flag}={port}" for flag, port in ports.items())),
    ]
    head = Head(folder, node, ports["--port"], url, environment)
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_until(lambda: answers(head, process, inside), START_SECONDS)
        yield head
    finally:
        if process.poll() is not None:  # it should have been ours to end: say why it did
            print((folder / "head.log").read_text())
        end(process, folder)
        shutil.rmtree(folder, ignore_errors=True)


def answers(head: Head, process: subprocess.Popen[bytes], inside: Sequence[str]) -> bool:
    """Whether jobs can be sent: the head's own agent is there as well."""
    assert process.poll() is None, (head.folder / "head.log").read_text()
    if inside:
        code = f"import socket; socket.create_connection({(head.node, head.port)}).close()"
        return subprocess.run([*inside, sys.executable, "-c", code], stderr=-3).returncode == 0
    try:
        return bool(head.ask("/api/jobs/") == [])
    except (OSError, urllib.error.URLError):
        return False


def end(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Kill a process group, and wait for what it started in groups of their own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while pids := started_in(folder):
        if time.monotonic() > deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def started_in(folder: Path) -> list[int]:
    """Processes whose environment has HOME in a folder of ours."""
    mark, found = f"HOME={folder}\0".encode(), []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes() + b"\0":
                found.append(int(entry.name))
    return found
