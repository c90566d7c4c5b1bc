"""Two hosts on this machine: network namespaces with an address each, joined by a virtual link.

Nothing that is sent there leaves the namespaces.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Host:
    """A network namespace with a loopback and one end of the link."""

    name: str
    address: str
    link: str

    @property
    def inside(self) -> tuple[str, ...]:
        """The words before a command that is to run there."""
        return ("ip", "netns", "exec", self.name)

    def run(self, *command: str) -> str:
        """What a short command prints there."""
        done = subprocess.run([*self.inside, *command], capture_output=True, text=True, check=True)
        return done.stdout

    def sent(self) -> int:
        """Bytes that have left over the link."""
        return int(self.run("cat", f"/sys/class/net/{self.link}/statistics/tx_bytes"))

    def unplug(self) -> None:
        """Take the link down: what is sent is lost, and nobody is told."""
        self.run("ip", "link", "set", self.link, "down")

    def plug(self) -> None:
        """Bring the link up again."""
        self.run("ip", "link", "set", self.link, "up")


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Makes the hosts and takes them away again; skips where that is not allowed."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2's `ip`")
    mark = secrets.token_hex(3)
    hosts = tuple(
        Host(f"fz{mark}{side}", f"10.77.0.{number}", f"fz{mark}{side}")
        for number, side in enumerate("ab", start=1)
    )
    first, second = hosts
    made = []
    try:
        for host in hosts:
            _ip("netns", "add", host.name)
            made.append(host)
        _ip(
            *("link", "add", first.link, "netns", first.name, "type", "veth"),
            *("peer", "name", second.link, "netns", second.name),
        )
        for host in hosts:
            host.run("ip", "address", "add", f"{host.address}/24", "dev", host.link)
            host.run("ip", "link", "set", "lo", "up")
            host.plug()
    except subprocess.CalledProcessError as error:
        _remove(made)
        pytest.skip(f"no network namespaces here: {error.stderr}")
    try:
        yield first, second
    finally:
        _remove(made)


def _remove(hosts: list[Host]) -> None:
    for host in hosts:
        _ip("netns", "delete", host.name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], capture_output=True, text=True, check=True)
