"""A Ray head of our own that starts and ends worker nodes on this machine as they are asked for."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from processes import free_port
from ray_head import BIN, PORTS, START_SECONDS, end, wait_until

PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
HEAD_ID = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"
IDLE_SECONDS = 6.0
LISTS = (
    *("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands"),
    *("setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands"),
)
# Prints how many worker nodes are alive, whenever that changes.
WATCH = """
import sys, time, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
last = None
while True:
    alive = sum(node["Alive"] and "CPU" in node["Resources"] for node in ray.nodes())
    if alive != last:
        print(alive, flush=True)
    last = alive
    time.sleep(0.2)
"""


@dataclass
class Growing:
    """A cluster whose number of workers is not fixed, and what it was so far."""

    address: str
    environment: dict[str, str]
    counts: list[int] = field(default_factory=list)


def config(address: str, most: int, num_cpus: int) -> dict[str, Any]:
    """What the autoscaler is told: up to `most` nodes, each with so many CPUs."""
    worker = {"CPU": num_cpus, "object_store_memory": 80 * 2**20}
    return {
        "cluster_name": "growing",
        "max_workers": most,
        "upscaling_speed": 100.0,
        "idle_timeout_minutes": IDLE_SECONDS / 60,
        "provider": {
            "type": "external",
            "module": PROVIDER,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "gcs_address": address,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": worker, "node_config": {}, "max_workers": most},
        },
        "head_node_type": "ray.head.default",
        "auth": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in LISTS},
    }


@contextlib.contextmanager
def growing_cluster(most: int, num_cpus: int = 1) -> Iterator[Growing]:
    """Starts the head alone; nodes come when somebody waits for them, and go when idle."""
    folder = Path(tempfile.mkdtemp(prefix="fz", dir="/tmp"))
    node = ray._private.services.get_node_ip_address()  # where the provider looks for the head
    ports = {flag: free_port() for flag in PORTS}
    address = f"{node}:{ports['--port']}"
    (folder / "config.json").write_text(json.dumps(config(address, most, num_cpus)))
    environment = {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "HOME": str(folder),
        "OMP_NUM_THREADS": "1",
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_AUTH_MODE": "disabled",
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
    }
    command = [
        *(str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats"),
        *("--num-cpus=0", f"--temp-dir={folder / 'r'}", f"--node-ip-address={node}"),
        *("--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=80000000"),
        f"--autoscaling-config={folder / 'config.json'}",
        *(f"{flag}={port}" for flag, port in ports.items()),
    ]
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    cluster = Growing(address, environment)
    try:
        wait_until(lambda: _answers(node, ports["--port"]), START_SECONDS)
        with _watched(cluster):
            yield cluster
    finally:
        end(process, folder)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _watched(cluster: Growing) -> Iterator[None]:
    watch = subprocess.Popen(
        [sys.executable, "-c", WATCH, cluster.address],
        env=cluster.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watch.stdout is not None
    lines = watch.stdout
    listener = threading.Thread(
        target=lambda: cluster.counts.extend(int(line) for line in lines), daemon=True
    )
    listener.start()
    try:
        wait_until(lambda: cluster.counts, START_SECONDS)
        yield
    finally:
        watch.kill()
        watch.wait()
        listener.join(timeout=10)
        lines.close()


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
