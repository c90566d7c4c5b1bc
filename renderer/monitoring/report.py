"""A render's account as one HTML page that needs nothing else: picture, plan, times, failures.

Everything comes from the store and is escaped by jinja2: a prompt is text that strangers wrote.
Folders and addresses of this machine stay out, as in the picture's own metadata.
"""

from __future__ import annotations

import base64
import io
import itertools
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from ..errors import ExportError, printable
from ..files.atomic import whole_file
from ..spec.units import GIB
from ..store.provenance import software, source
from ..store.store import Store
from ..store.thumbnail import thumbnail
from . import prediction, run_log
from .charts import Chart, bars, shares
from .durations import clock, span
from .reproduce import command, placeless
from .status import Status, status
from .time_left import Left

THUMBNAIL = 1024


# The model and the size come first; the rest in the order of the spec.
FIRST = ("prompt", "model", "width", "height")


def report(
    store_path: str | os.PathLike[str], out: str | os.PathLike[str], *, overwrite: bool = False
) -> Path:
    """Write the report of a store, finished or not, and return where it is.

    Raises `StoreError` where there is no store, `ExportError` where the page cannot be written.
    """
    found = status(store_path)
    store, target = source(store_path, out), Path(out)
    if target.suffix not in (".html", ".htm"):
        raise ExportError(f"{target}: a report is a page; name it .html")
    text = _page(store, found)
    with whole_file(target, overwrite=overwrite, error=ExportError) as part:
        part.write_text(text, encoding="utf-8")
    return target


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    return environment.from_string(page)


def _page(store: Store, found: Status) -> str:
    lines = run_log.read(store.path)
    about, name = store.provenance, store.path.stem
    picture = about.get("picture", {})
    again = picture | placeless(store.run.get("spec") or {})
    line = command(again, name, len(found.workers) or 1)
    text = _template().render(
        name=name,
        status=found,
        headline=_headline(found, lines),
        thumbnail=_thumbnail(store),
        picture={k: picture[k] for k in (*FIRST, *picture) if picture.get(k) not in (None, [], {})},
        stages=_stages(found, lines),
        steps=bars(lines),
        shares=_shares(lines),
        failures=[{**f, "clock": clock(f["time"])} for f in found.failures],
        versions=_versions(about, lines),
        command=line,
        software=software(),
    )
    return printable(text, kept="\n\t")


def _headline(found: Status, lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The few figures that everybody asks for."""
    told = [line["size"] for line in lines if line["event"] == "plan" and line.get("size")]
    size = told[-1] if told else found.stages[-1]["size"]  # a decoder may make more of the last
    rows = [("state", found.state), ("size", "{} × {}".format(*size))]
    if lines:
        rows.append(("begun", clock(lines[0]["time"])))
        rows.append(("wall time", span(sum(run_seconds(run) for run in runs(lines)))))
    if found.left is not None:
        rows.append(("time left", str(Left(found.left, found.left_is)).removesuffix(" left")))
    accuracies = filter(None, map(prediction.of_facts, reversed(lines)))
    if (accuracy := next(accuracies, None)) is not None:
        took = f"{span(accuracy.predicted)}, and took {span(accuracy.took)}"
        rows.append(("steps and decoding predicted", f"{took} ({accuracy.off:+.0%})"))
    told = [line for line in lines if "reused" in line and "evaluations" in line]
    if told:
        rows.append(("steps reused", "{reused} of {evaluations} evaluations".format(**told[-1])))
    if found.workers:
        rows.append(("workers", str(len(found.workers))))
    rows.append(("blocks", f"{found.blocks} of {found.num_blocks}"))
    peak = max((line.get("peak_bytes", 0) for line in lines), default=0)
    if peak:
        rows.append(("peak memory", f"{peak / GIB:.2f} GiB a worker"))
    return rows


def runs(lines: Sequence[Mapping[str, Any]]) -> list[Sequence[Mapping[str, Any]]]:
    """The lines of every run: the first, and those that resumed it after a pause."""
    begins = [number for number, line in enumerate(lines) if line["event"] == "plan"]
    bounds = [0, *begins[1:], len(lines)]
    return [lines[a:b] for a, b in itertools.pairwise(bounds) if a < b]


def run_seconds(run: Sequence[Mapping[str, Any]]) -> float:
    """Wall time of a run."""
    return float(run[-1]["time"] - run[0]["time"])


def start_seconds(run: Sequence[Mapping[str, Any]]) -> float:
    """Seconds of a run before its work: workers, prompts, weights."""
    works = (line for line in run if line["event"] in ("stage", "decode"))
    first = next(works, run[-1])
    return float(first["time"] - run[0]["time"])


def _stages(found: Status, lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each stage was and what its steps cost."""
    rows = []
    for number, stage in enumerate(found.stages, 1):
        steps = [x for x in lines if x["event"] == "step" and x["stage"] == number]
        seconds = sum(step["seconds"] for step in steps)
        moved = sum(step.get("moved_bytes", 0) for step in steps)
        rows.append(
            {
                "size": "{} × {}".format(*stage["size"]),
                "steps": stage["steps"],
                "seconds": seconds,
                "each": seconds / len(steps) if steps else 0.0,
                "moved": moved / len(steps) / 2**20 if steps else 0.0,
            }
        )
    return rows


def _shares(lines: Sequence[Mapping[str, Any]]) -> Chart:
    """Seconds of the whole render by part."""
    steps = [line for line in lines if line["event"] == "step"]
    parts = {"start": sum(map(start_seconds, runs(lines)))}
    parts |= {part: sum(s.get(part, 0.0) for s in steps) for part in ("compute", "exchange")}
    parts["save"] = sum(line["seconds"] for line in lines if line["event"] == "save")
    parts["decode"] = sum(line["elapsed"] for line in lines if line["event"] == "block")
    parts["driver"] = sum(s.get("driver", 0.0) for s in steps)
    return shares(parts)


def _versions(
    about: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """What drew the picture, by name."""
    plans = [line for line in lines if line["event"] == "plan"]
    rows = [("frieze", str(about.get("version", "?")))]
    rows += list(plans[-1].get("versions", {}).items()) if plans else []
    if weights := about.get("weights"):
        rows.append(("weights (sha256)", str(weights)))
    return rows


def _thumbnail(store: Store) -> str:
    """A small picture as a data address; of a clip its middle frame; empty if undrawn."""
    if not store.is_complete:
        return ""
    packed = io.BytesIO()
    thumbnail(store, THUMBNAIL).save(packed, format="JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(packed.getvalue()).decode("ascii")
