"""Two hosts with an address each: ranks meet over their link, and renders are the same there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.hosts import Host, two_hosts
from tolerances import AMPLE

# A rank of two that passes tensors around, and then says what it sent and where it listens.
RANK = """
import json, os, sys
import torch
import torch.distributed as dist
from frieze.cluster.comm.messages import Like
from frieze.cluster.comm.processes import DistributedComm

rank, address, path, kib, rounds = (int(w) if w.isdigit() else w for w in sys.argv[1:])
store = dist.FileStore(path, 2)
comm = DistributedComm(rank, 2, store=store, address=address, timeout=240.0)
x = torch.full((kib, 256), float(rank))
for _ in range(rounds):
    x = comm.ring_pass(x, Like.of(x)).only()
inodes = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
          if os.path.exists(f"/proc/self/fd/{fd}")}
listening = []
for table in ("tcp", "tcp6"):
    for line in open(f"/proc/self/net/{table}").readlines()[1:]:
        words = line.split()
        if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
            listening.append(words[1].split(":")[0])
print(json.dumps({"x": float(x.mean()), "sent": comm.num_bytes_sent, "listening": listening}))
sys.stdout.flush()
comm.barrier()
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    with two_hosts() as hosts:
        yield hosts


def in_hex(address: str) -> str:
    """An address as /proc/net/tcp writes it."""
    return "".join(f"{int(part):02X}" for part in reversed(address.split(".")))


def test_ranks_meet_over_the_link_and_listen_on_their_own_addresses_only(
    hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    kib, rounds = 1024, 5
    before = [host.sent() for host in hosts]
    ranks = [
        subprocess.Popen(
            [
                *(*host.inside, sys.executable, "-c", RANK, str(rank)),
                *(host.address, str(tmp_path / "store"), str(kib), str(rounds)),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank, host in enumerate(hosts)
    ]
    told = [json.loads(rank.communicate(timeout=AMPLE)[0]) for rank in ranks]
    payload = kib * 1024 * rounds
    for host, rank, was, other in zip(hosts, told, before, (1.0, 0.0), strict=True):
        assert rank["x"] == other
        assert rank["sent"] == payload
        assert set(rank["listening"]) == {in_hex(host.address)}
        assert payload < host.sent() - was < 1.1 * payload
