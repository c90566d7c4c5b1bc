"""Commands as they are printed for a reader to copy: quoted, and whole from any folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from ..files.location import Location
from ..spec.render_spec import RenderSpec


def resume(store: Location, spec: RenderSpec, outputs: Mapping[str, Any]) -> str:
    """The command that finishes a store with the workers of `spec`.

    `outputs` is the store's record of them: those that lie elsewhere are made only if they are
    asked for, and so is what replaces another.
    """
    words = ["frieze", "resume", str(store.absolute())]
    if spec.most_workers > 1:
        most = f"..{spec.max_workers}" if spec.max_workers else ""
        words += ["--workers", f"{spec.workers}{most}"]
    words += ["--local"] if spec.local else []
    words += ["--address", spec.address] if spec.address else []
    for name in outputs["exports"]:
        words += ["--also", name] if name.startswith("/") or "://" in name else []
    words += ["--overwrite"] if outputs["overwrite"] else []
    words += ["--sign", "CERT", "KEY"] if outputs.get("signed") is True else []
    return shlex.join(words)


def batch(
    jobs: str,
    out: str,
    *,
    workers: int | str | None = None,
    local: bool = False,
    address: str | None = None,
    sign: tuple[str, str] | None = None,
    timestamp: str | None = None,
) -> str:
    """The command that goes on with a batch, on the workers and signed as were asked for."""
    words = ["frieze", "batch", jobs, "--out", out]
    words += ["--workers", str(workers)] if workers else []
    words += ["--local"] if local else []
    words += ["--address", address] if address else []
    words += ["--sign", *sign] if sign else []
    words += ["--timestamp", timestamp] if timestamp else []
    return shlex.join([*words, "--continue"])
