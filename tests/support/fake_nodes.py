"""A Ray cluster whose autoscaler starts and ends nodes on this machine, for tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
import yaml

from support.processes import free_port

START_SECONDS = 120.0
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
LISTS = (
    *("cluster_synced_files", "initialization_commands", "setup_commands"),
    *("head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands"),
)
HEAD_NODE_ID = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"


def config(address: str, most_workers: int) -> dict[str, Any]:
    """A head with one CPU, and up to so many nodes with one more each."""
    worker = {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0}
    return {
        "cluster_name": "fake",
        "max_workers": most_workers,
        "idle_timeout_minutes": 0.1,
        "upscaling_speed": 10.0,
        "provider": {
            "type": "external",
            "module": PROVIDER,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "gcs_address": address,
        },
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
            "worker": {**worker, "max_workers": most_workers},
        },
        # What `ray up` would fill in.
        **{key: {} for key in ("auth", "docker", "file_mounts", "head_node", "worker_nodes")},
        **{key: [] for key in LISTS},
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
    }


@contextlib.contextmanager
def growing_cluster(most_workers: int) -> Iterator[str]:
    """Yields the address; every process that was started ends with the block."""
    mark = f"cluster-{uuid.uuid4().hex}"
    folder = Path(tempfile.mkdtemp(prefix="fz", dir="/tmp"))  # paths of sockets must be short
    address = f"{ray.util.get_node_ip_address()}:{free_port()}"
    (folder / "config.yaml").write_text(yaml.safe_dump(config(address, most_workers)))
    environment = {
        **os.environ,
        "FRIEZE_TEST_CLUSTER": mark,
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_AUTH_MODE": "disabled",
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_NODE_ID,
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    environment.pop("RAY_ADDRESS", None)
    host, port = address.split(":")
    options = {
        "port": port,
        "node-ip-address": host,
        "num-cpus": 1,
        "object-store-memory": 2**27,
        "temp-dir": folder / "ray",
        "autoscaling-config": folder / "config.yaml",
        "include-dashboard": "false",
        "disable-usage-stats": None,
    }
    words = [f"--{k}" if value is None else f"--{k}={value}" for k, value in options.items()]
    program = Path(sys.executable).with_name("ray")
    log = (folder / "head.log").open("wb")
    command = [sys.executable, program, "start", "--head", "--block", *words]
    head = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        wait_for_port(host, int(port), head, folder / "head.log")
        yield address
    finally:
        head.kill()
        head.wait()
        kill_marked(mark)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_port(host: str, port: int, head: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and head.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection((host, port), timeout=1.0).close()
            return
        time.sleep(0.2)
    raise AssertionError(log.read_text()[-2000:])


def kill_marked(mark: str) -> None:
    """Ends every process that inherited the mark, and their children."""
    for _ in range(20):
        found = [int(entry.name) for entry in Path("/proc").iterdir() if is_marked(entry, mark)]
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)


def is_marked(entry: Path, mark: str) -> bool:
    if not entry.name.isdigit() or int(entry.name) == os.getpid():
        return False
    try:
        return mark.encode() in (entry / "environ").read_bytes()
    except OSError:
        return False
