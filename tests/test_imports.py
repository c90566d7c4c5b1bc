"""What modules import, so that commands and workers start soon."""

from __future__ import annotations

import subprocess
import sys

import pytest

WEIGHTY = {"torch", "ray", "diffusers", "transformers", "zarr", "tifffile", "numpy", "obstore"}


# What each imports in a process of its own, or, once torch is there, after those before it.
IMPORTS = [
    [("frieze.renderer.cli.app", WEIGHTY)],
    [("frieze.renderer.RenderSpec", WEIGHTY)],
    [
        ("frieze.cluster.layout", {"torch", "ray"}),
        ("frieze.cluster.fleet.fleet", {"ray", "diffusers"}),
        ("frieze.kernels.attention", {"triton", "xformers", "ray", "diffusers"}),
        # A driver of a cluster needs neither, and who is refused waits for neither.
        ("frieze.renderer.driver.driver.Driver", {"ray", "diffusers", "transformers"}),
        ("frieze.renderer.worker.shard.Shard", {"ray", "diffusers", "transformers"}),
    ],
]


@pytest.mark.parametrize("modules", IMPORTS, ids=lambda modules: modules[0][0])
def test_importing_is_cheap(modules: list[tuple[str, set[str]]]) -> None:
    lines = ["import sys"]
    for module, libraries in modules:
        package, _, name = module.rpartition(".")
        lines += [f"from {package} import {name}", f"found = sys.modules.keys() & {libraries}"]
        lines += [f"assert not found, f'{module} imports {{found}}'"]
    run = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
