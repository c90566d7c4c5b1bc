"""A Ray cluster over two hosts, and renders on it: a head on the first, a node on the second."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.drawing import PROMPT
from support.hosts import Host, two_hosts
from support.ray_head import BIN, JOB_SECONDS, Head, end, ray_head, wait_until

SIDE = 512
STEPS = 8  # of each of two stages
SILENCE = 40.0  # seconds after which ranks are told lost; they load for as long on a busy machine
ROOM = 20.0  # seconds for another host to stand in
LIMITS = ("--timeout", f"{SILENCE:g}", "--wait", f"{ROOM:g}")
DRAW = ("render", PROMPT, "--size", f"{SIDE}x{SIDE}", "--seed", "7", "--method", "pi")


@dataclass(frozen=True)
class Cluster:
    """A head on the first host and a node on the second, a CPU for one rank on each."""

    hosts: tuple[Host, Host]
    head: Head

    def frieze(self, *words: str) -> subprocess.Popen[str]:
        """A command of ours as a driver on the first host."""
        first = self.hosts[0]
        more = ("--address", f"{first.address}:{self.head.port}")
        if words[0] == "render":
            more = (*more, "--workers", "2", "--num-inference-steps", str(STEPS))
        return subprocess.Popen(
            [*first.inside, BIN / "frieze", *words, *more],
            env=dict(self.head.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def done(self, *words: str) -> str:
        """What the command tells on stderr; it must end well."""
        with self.frieze(*words) as process:
            _, err = process.communicate(timeout=JOB_SECONDS)
        assert process.returncode == 0, err
        return err

    def drawn(self, out: Path, *words: str) -> list[dict[str, Any]]:
        """The render's log."""
        told = self.done(*DRAW, "--out", str(out), *words)
        for host in self.hosts:
            assert f"on {host.address})" in told
        lines = (out / "frieze" / "log.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


@contextlib.contextmanager
def node(head: Head, host: Host) -> Iterator[None]:
    """A node of the head's cluster on a host, ended by its process group."""
    command = [
        *(*host.inside, str(BIN / "ray"), "start", "--block", "--disable-usage-stats"),
        *(f"--address={hosts_address(head)}", f"--node-ip-address={host.address}"),
        *("--num-cpus=1", "--object-store-memory=100000000"),
        *("--min-worker-port=0", "--max-worker-port=0"),
    ]
    # Its HOME tells its processes from the head's when they are to be ended.
    home = head.folder / "node"
    home.mkdir(exist_ok=True)
    environment = {**head.environment, "HOME": str(home)}
    with (head.folder / "node.log").open("a") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_until(lambda: "block" in (head.folder / "node.log").read_text(), 90)
        yield
    finally:
        end(process, home)


def hosts_address(head: Head) -> str:
    return f"{head.node}:{head.port}"


@contextlib.contextmanager
def two_host_cluster() -> Iterator[Cluster]:
    """Skips where namespaces are not allowed."""
    with two_hosts() as hosts:
        first, second = hosts
        with ray_head(first.address, num_cpus=1, inside=first.inside) as head, node(head, second):
            yield Cluster(hosts, head)
