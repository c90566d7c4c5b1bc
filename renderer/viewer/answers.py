"""What the page is told, as JSON: everything on view in short, one store in full."""

from __future__ import annotations

import time
from typing import Any

from ..codecs.tile_pyramid import TILE
from ..errors import line, printable
from ..monitoring.durations import clock
from ..monitoring.time_left import Left
from .entries import MOST_PROMPT, Collection, StoreEntry
from .latent_preview import ColourFit

MOST_FAILURES = 20


def everything(collection: Collection) -> dict[str, Any]:
    """All stores and batches, in the order of their names."""
    return {
        "name": collection.name,
        "is_store": collection.is_store,
        "is_live": True,
        "stores": [brief(key, entry) for key, entry in collection.stores.items()],
        "batches": [batch.as_json() for batch in collection.batches.values()],
    }


def brief(key: str, entry: StoreEntry) -> dict[str, Any]:
    """A store as a list has it."""
    about: dict[str, Any] = {"key": key, "name": entry.name, "state": "unseen"}
    if entry.fault:
        return about | {"state": "damaged", "line": entry.fault}
    found, store, pyramid = entry.status, entry.store, entry.pyramid
    if found is None or store is None or pyramid is None:
        return about
    layout = store.layout
    return about | {
        "state": found.state,
        "line": found.line().removeprefix(f"{line(found.path)}: "),
        "width": layout.width,
        "height": layout.height,
        "frames": layout.frames,
        "fps": layout.fps,
        "prompt": entry.prompt[:MOST_PROMPT],
        "stage": found.stage,
        "num_stages": found.num_stages,
        "step": found.step,
        "num_steps": found.num_steps,
        "blocks": found.blocks,
        "num_blocks": found.num_blocks,
        "is_saved": store.last_state() is not None,
        "edition": entry.edition,
        "revision": entry.revision,
        "top": pyramid.top,
        "tile": TILE,
        "suffix": ".png",
    }


def in_full(key: str, entry: StoreEntry, fit: ColourFit | None) -> dict[str, Any]:
    """A store as its own page has it."""
    about = brief(key, entry)
    found, store = entry.status, entry.store
    if found is None or store is None:
        return about
    left = None if found.left is None else str(Left(found.left, found.left_is))
    shown = [
        {"clock": clock(each["time"]), "message": line(each.get("message", ""))}
        for each in found.failures[-MOST_FAILURES:]
        if isinstance(each.get("time"), int | float)
    ]
    state = store.last_state()
    preview = None
    if state is not None and found.state != "done":
        preview = {"stage": state.stage + 1, "step": state.step, "is_fitted": fit is not None}
    return about | {
        "prompt": entry.prompt,
        "negative_prompt": printable(str(_picture(entry, "negative_prompt") or ""), kept="\n"),
        "model": printable(str(_picture(entry, "model") or "")),
        "seed": _seed(entry),
        "left": left,
        "seconds_per_step": found.seconds_per_step,
        "heard": max(0.0, time.time() - found.heard) if found.heard else None,
        "stages": [{"size": s.get("size"), "steps": s.get("steps")} for s in found.stages],
        "workers": [
            {k: printable(str(w.get(k, "?"))) for k in ("rank", "device", "pid", "node")}
            for w in found.workers
        ],
        "failures": shown,
        "num_failures": len(found.failures),
        "num_recovered": found.num_recovered,
        "num_resumes": found.num_resumes,
        "dtype": store.layout.dtype,
        "block": list(store.layout.block),
        "preview": preview,
    }


def _seed(entry: StoreEntry) -> str | None:
    """In letters: a number of JavaScript holds 53 bits, and a seed 64."""
    seed = _picture(entry, "seed")
    return str(seed) if isinstance(seed, int) else None


def _picture(entry: StoreEntry, name: str) -> Any:
    """A field of what was asked for, without the places of this machine."""
    assert entry.store is not None
    return entry.store.provenance.get("picture", {}).get(name)
