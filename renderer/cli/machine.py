"""What this machine offers a render, line by line; `frieze doctor` prints it.

A finding is ok, absent (a render does without it; the detail says how) or missing (it cannot).
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from .. import plugins
from ..checkpoints.checkpoint import describe
from ..checkpoints.shipped import SHIPPED
from ..errors import ModelError
from ..inputs.host_memory import memory_bytes
from ..spec.units import GIB

NEEDED = ("torch", "diffusers", "transformers", "ray", "zarr", "tifffile", "pydantic")
OPTIONAL = ("triton", "xformers", "av", "pillow-heif")
# Ray writes the address of the cluster that this machine is part of here.
RAY_ADDRESS_FILE = Path("/tmp/ray/ray_current_cluster")


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    group: str
    name: str
    state: Literal["ok", "absent", "missing"]
    detail: str

    def __str__(self) -> str:
        return f"{self.state:<8} {self.group:<10} {self.name:<20} {self.detail}".rstrip()

    def to_json(self) -> str:
        """The finding as one JSON object."""
        return json.dumps(asdict(self))


def examine(folder: str = ".") -> Iterator[Finding]:
    """All there is to report, the slow imports last; `folder` is where a picture would go."""
    yield from _versions()
    yield from _machine(folder)
    yield from _plugins()
    yield from map(_shipped, SHIPPED)
    yield cluster()
    if find_spec("torch") is not None:
        yield from _devices()
        yield from _attention()


def _versions() -> Iterator[Finding]:
    yield Finding("version", "frieze", "ok", metadata.version("frieze"))
    yield Finding("version", "python", "ok", platform.python_version())
    for name in (*NEEDED, *OPTIONAL):
        try:
            yield Finding("version", name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            state: Literal["absent", "missing"] = "missing" if name in NEEDED else "absent"
            yield Finding("version", name, state, "not installed")


def _machine(folder: str) -> Iterator[Finding]:
    yield Finding("machine", "cpu", "ok", f"{num_cores()} cores, {platform.machine()}")
    yield Finding("machine", "memory", "ok", f"{memory_bytes() / GIB:.1f} GiB")
    free = shutil.disk_usage(folder).free
    where = Path(folder).absolute()
    if os.access(where, os.W_OK):
        yield Finding("machine", "disk", "ok", f"{free / GIB:.1f} GiB free in {where}")
    else:
        yield Finding(
            "machine", "disk", "absent", f"{where} cannot be written; use --out elsewhere"
        )


def num_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _plugins() -> Iterator[Finding]:
    for kind in plugins.KINDS:
        yield Finding("plugins", kind, "ok", ", ".join(plugins.names(kind)))


def _shipped(name: str) -> Finding:
    try:
        facts = describe(name)
    except ModelError as error:
        return Finding("model", name, "missing", str(error))
    size = sum(facts.cost.weight_bytes.values()) / 2**20
    return Finding(
        "model",
        name,
        "ok",
        f"{facts.family}, trained at {facts.training_size} px, {size:.0f} MiB",
    )


def cluster() -> Finding:
    """Whether a cluster answers: one connection to the address that Ray itself would use."""
    address = os.environ.get("RAY_ADDRESS", "")
    if not address and RAY_ADDRESS_FILE.is_file():
        address = RAY_ADDRESS_FILE.read_text().strip()
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return Finding("cluster", "ray", "absent", "none is running; a render starts one here")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except OSError as error:
        why = f"{address} does not answer ({error.strerror or error}); a render starts one here"
        return Finding("cluster", "ray", "absent", why)
    return Finding("cluster", "ray", "ok", f"{address} answers; use --address {address}")


def _devices() -> Iterator[Finding]:
    import torch

    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        detail = f"{facts.name}, {facts.total_memory / GIB:.1f} GiB, sm_{facts.major}{facts.minor}"
        yield Finding("device", f"cuda:{index}", "ok", detail)
    if not torch.cuda.is_available():
        why = "no CUDA device is seen" if torch.version.cuda else "this torch is built without it"
        yield Finding("device", "cuda", "absent", f"{why}; --device cpu works")
    yield Finding("device", "cpu", "ok", f"{torch.get_num_threads()} threads")


def _attention() -> Iterator[Finding]:
    from frieze.kernels.attention import backends

    for report in backends():
        yield Finding("attention", report.name, "ok" if report.available else "absent", report.why)
