"""The quality benchmark's table in Markdown, its CSV, its contact sheets, and what they teach."""

from __future__ import annotations

import csv
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from bench import quality_metrics as metrics
from bench import quality_rows, quality_store
from bench.quality_metrics import Estimate
from bench.quality_rows import Cell, Settings
from bench.quality_store import Measures, Shelf

SHARES = ("one sun", "right colour", "sky above")
SMALLER_IS_BETTER = ("repeats across", "repeats down", "layout KID", "crop KID")
TO_FULL = ("RMS to full", "border step")  # what distances of features do not see
COLUMNS = (*SHARES, *SMALLER_IS_BETTER, "detail", "entropy", *TO_FULL, "seconds")
TODAY = ("enlarged", "tiles")
THUMB, LABEL, SEEDS = 128, 150, 6
LEAST = 4  # pictures of a row, below which it is not said to beat another
LEGEND = """\
Each figure is followed by its 95 % interval (bootstrap over pictures; of shares Wilson's).
*one sun*, *right colour*, *sky above*: shares of pictures that the oracle reads so.
*repeats*: the highest correlation of a picture with itself at lags around the dominant period
({period:.1f} tokens), above that of real scenes; *lag*: its median, in tokens, on the worse axis.
*KID*: kernel distance from real scenes of that size, of the picture reduced to the trained area and
of crops of the trained size, in features of `tests/bench/features.py`.
*detail*: energy above 1/4 cycle per pixel, real scenes = 1.
*entropy*: of attention on the second step, nats, mean over layers and heads.
*RMS to full*: grey levels between a picture of `auto` and the same seed's with full attention, both
reduced to {reduced} pixels; *border step*: how much more the sky steps where windows may end than
elsewhere, grey levels.
*seconds*: a picture, wall time of a process of one thread, beside those of the other `--jobs`."""


@dataclass(frozen=True)
class Line:
    """One row of one cell."""

    shelf: Shelf
    pictures: int
    figures: Mapping[str, Estimate]
    lag: str

    @property
    def name(self) -> str:
        return self.shelf.row.name


@dataclass(frozen=True)
class Judged:
    """All rows of a cell that have pictures."""

    cell: Cell
    lines: Sequence[Line]
    num_real: int


def judged(work: Path, cell: Cell, shelves: Sequence[Shelf], number: int) -> Judged:
    """What the pictures that are there say; rows of fewer than two are left out."""
    kept = {shelf.row.name: [s for s in range(number) if shelf.has(s)] for shelf in shelves}
    most = max(max(seeds, default=-1) for seeds in kept.values()) + 1
    real = quality_store.real(work, cell, shelves[0].settings, most)
    full = next((shelf for shelf in shelves if shelf.row.name == quality_rows.FULL), None)
    lines = [
        line(shelf, kept[shelf.row.name], real, shelf.entropies(number), full)
        for shelf in shelves
        if len(kept[shelf.row.name]) > 1
    ]
    return Judged(cell, lines, len(real) * quality_rows.REALS)


def line(
    shelf: Shelf,
    seeds: Sequence[int],
    real: Sequence[Sequence[Measures]],
    entropies: Sequence[float],
    full: Shelf | None = None,
) -> Line:
    """One row's figures; every row's intervals are drawn with the same numbers.

    `real` has the real scenes of every seed, `full` the pictures of `auto` with full attention.
    """
    rng = np.random.default_rng(0)
    found, beside = [shelf.measures(seed) for seed in seeds], [real[seed] for seed in seeds]
    all_real = [m for each in real for m in each]
    across, lag_across = _repetition([m.across_T for m in found], [m.across_T for m in all_real])
    down, lag_down = _repetition([m.down_T for m in found], [m.down_T for m in all_real])
    figures = {
        "one sun": metrics.share([m.suns == 1 for m in found]),
        "right colour": metrics.share([bool(m.colour) for m in found]),
        "sky above": metrics.share([bool(m.upright) for m in found]),
        "repeats across": metrics.mean(across, rng),
        "repeats down": metrics.mean(down, rng),
        "layout KID": _kid(found, beside, "layout_KF", rng),
        "crop KID": _kid(found, beside, "crops_KF", rng),
        "detail": metrics.ratio(
            np.array([m.detail for m in found]),
            np.array([np.mean([m.detail for m in each]) for each in beside]),
            rng,
        ),
        "entropy": metrics.mean(entropies, rng),
        "RMS to full": metrics.mean(_distances(shelf, seeds, full), rng),
        "border step": metrics.mean([float(m.border_step) for m in found], rng),
        "seconds": metrics.mean([float(m.seconds) for m in found], rng),
    }
    worst = max(
        (
            (r.mean(), f"{np.median(lag):.1f} {way}")
            for r, lag, way in ((across, lag_across, "across"), (down, lag_down, "down"))
            if not np.isnan(r).any()
        ),
        default=(0.0, ""),
    )
    return Line(shelf, len(found), figures, worst[1])


def _distances(shelf: Shelf, seeds: Sequence[int], full: Shelf | None) -> list[float]:
    """Of the pictures of `auto` that full attention has drawn too; of others nothing is asked."""
    if full is None or shelf.row.method != "auto":
        return []
    both = [seed for seed in seeds if full.has(seed)]
    return [metrics.rms(shelf.picture(seed), full.picture(seed)) for seed in both]


def _repetition(
    profiles: Sequence[np.ndarray], real: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    return metrics.repetition(np.stack(profiles), np.stack(real).mean(0))


def _kid(
    found: Sequence[Measures],
    real: Sequence[Sequence[Measures]],
    name: str,
    rng: np.random.Generator,
) -> Estimate:
    """Distance of features from those of the real scenes of the same prompts."""
    x_NKF = np.stack([getattr(m, name) for m in found])
    y_NJF = np.stack([np.concatenate([getattr(m, name) for m in each]) for each in real])
    return metrics.kid(x_NKF, y_NJF, rng)


def beats(one: Estimate, other: Estimate, column: str) -> bool:
    """Whether one figure is better than another beyond both intervals.

    An interval that is a point, as a KID's of two pictures, is none.
    """
    if column.endswith("KID") and (one.low == one.high or other.low == other.high):
        return False
    if column in SMALLER_IS_BETTER:
        return one.high < other.low
    if column == "detail":
        one, other = _off(one), _off(other)
        return one.high < other.low
    return column in SHARES and one.low > other.high


def _off(figure: Estimate) -> Estimate:
    """How far a ratio is from 1."""
    ends = sorted((abs(figure.low - 1), abs(figure.high - 1)))
    nearest = 0.0 if figure.low <= 1 <= figure.high else ends[0]
    return Estimate(abs(figure.value - 1), nearest, ends[1])


def remarks(found: Judged) -> list[str]:
    """Methods that are not worth their cost, what beats `auto`, and what `auto` beats."""
    many = [line for line in found.lines if line.pictures >= LEAST]
    today = [line for line in many if line.shelf.row.kind in TODAY]
    drawn = [line for line in many if line.shelf.row.kind == "method"]
    told = []
    for own in drawn:
        for other in today:
            ours, theirs = own.figures, other.figures
            loses = all(beats(theirs[c], ours[c], c) for c in ("crop KID", "detail"))
            if loses and not beats(ours["layout KID"], theirs["layout KID"], "layout KID"):
                told.append(
                    f"{own.name} is not worth its cost: {other.name} has the better crops and "
                    "detail, and no worse a layout."
                )
        if own.name == "auto":
            told += _rivals(own, [*drawn, *today], _ceiling(found))
    return told


def _ceiling(found: Judged) -> Mapping[str, Estimate]:
    """The figures of real scenes, if they have a row."""
    return next((one.figures for one in found.lines if one.shelf.row.kind == "scenes"), {})


def _rivals(own: Line, others: Sequence[Line], real: Mapping[str, Estimate]) -> list[str]:
    """What beats `auto`, or that nothing does, and what `auto` beats.

    To be less alike to itself than real scenes are is no merit, nor is the detail of what is drawn
    more than once: both are told apart.
    """
    told, run_isolated = [], []
    for column in COLUMNS:
        better = [o for o in others if beats(o.figures[column], own.figures[column], column)]
        if "repeats" in column and real and own.figures[column].low <= real[column].high:
            about = "Less alike to themselves than auto, which is no more so than real scenes"
            run_isolated += _named(f"{about}, in {column}", better)
            continue
        if column == "detail":
            twice = [o for o in better if _repeats_more(o, own)]
            better = [o for o in better if o not in twice]
            run_isolated += _named(
                "More detail than auto, of what they repeat more than it does", twice
            )
        told += [f"{other.name} beats auto in {column}." for other in better]
    if not told:
        told.append(f"Of {len(others)} rows, none beats auto in any column but seconds.")
    for other in others:
        won = [c for c in COLUMNS if beats(own.figures[c], other.figures[c], c)]
        run_isolated += [f"auto beats {other.name} in {', '.join(won)}."] * bool(won)
    return told + run_isolated


def _repeats_more(one: Line, other: Line) -> bool:
    columns = [column for column in SMALLER_IS_BETTER if "repeats" in column]
    return any(beats(other.figures[c], one.figures[c], c) for c in columns)


def _named(about: str, lines: Sequence[Line]) -> list[str]:
    return [f"{about}: {', '.join(line.name for line in lines)}."] if lines else []


def write(file: Path, found: Sequence[Judged], command: str, settings: Settings) -> None:
    """FILE.md, FILE.csv and contact sheets; notes are of tests/bench/FILE_notes.md, if any."""
    file.parent.mkdir(parents=True, exist_ok=True)
    head = f"# Extrapolation on the demo model\n\n{_header(command, settings)}\n\n"
    legend = LEGEND.format(period=metrics.dominant_period(), reduced=metrics.REDUCED)
    text = head + legend + "\n" + "".join(_section(cell, file.name) for cell in found)
    notes = Path(__file__).with_name(f"{file.name}_notes.md")
    if notes.exists():
        text += "\n" + notes.read_text(encoding="utf-8")
    file.with_suffix(".md").write_text(text, encoding="utf-8")
    with file.with_suffix(".csv").open("w", newline="", encoding="utf-8") as csv_file:
        table = csv.writer(csv_file, lineterminator="\n")
        table.writerow(("cell", "row", "pictures", "column", "value", "low", "high"))
        for cell in found:
            for one in cell.lines:
                table.writerows(_records(cell.cell, one))
    for cell in found:
        sheet(cell).save(file.with_name(f"{file.name}-{cell.cell}.png"), optimize=True)


def _records(cell: Cell, one: Line) -> list[tuple[object, ...]]:
    return [
        (cell, one.name, one.pictures, column, *(f"{x:.6g}" for x in (e.value, e.low, e.high)))
        for column, e in one.figures.items()
        if not np.isnan(e.value)
    ]


def _section(found: Judged, name: str) -> str:
    columns = list(COLUMNS)
    columns.insert(columns.index("layout KID"), "lag")
    lines = [
        f"\n## {found.cell}\n",
        f"Held to {found.num_real} other real scenes of that size and of the same prompts. "
        f"*Beats*: the intervals are apart, of {LEAST} pictures a row or more.\n",
        "| row | n | " + " | ".join(columns) + " |",
        "|---|" + "---|" * (len(columns) + 1),
    ]
    for one in found.lines:
        figures = [one.lag if c == "lag" else _shown(one.figures[c], c) for c in columns]
        lines.append(f"| {one.name} | {one.pictures} | " + " | ".join(figures) + " |")
    told = [f"- {remark}" for remark in remarks(found)]
    picture = f"\n![Rows of the table, the same seeds side by side]({name}-{found.cell}.png)\n"
    return "\n".join([*lines, picture, *told]) + "\n"


def _shown(figure: Estimate, column: str) -> str:
    if np.isnan(figure.value):
        return ""
    digits = 1 if column == "seconds" else 2
    return f"{figure.value:.{digits}f} ({figure.low:.{digits}f} to {figure.high:.{digits}f})"


def _header(command: str, settings: Settings) -> str:
    def git(*words: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(("git", *words), cwd=here, capture_output=True, text=True).stdout

    beside = (":(top)", ":(top,exclude)tests/bench/results")  # results are what is being written
    changed = (
        git("status", "--porcelain", "--untracked-files=no", "--", *beside) and ", with changes"
    )
    commit = git("rev-parse", "--short", "HEAD").strip() or "unknown"
    return (
        f"`{command}`\n\nCommit {commit}{changed}; {machine()}; torch {torch.__version__}.\n"
        f"{settings.steps} steps, time shift {settings.shift:g}, one seed and prompt for each "
        "picture, the same for all rows."
    )


def machine() -> str:
    """The processor or accelerator, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def sheet(found: Judged) -> Image.Image:
    """Rows of the cell, the same seeds side by side, each with its name."""
    width, height = (
        round(THUMB * x / min(found.cell.width, found.cell.height))
        for x in (found.cell.width, found.cell.height)
    )
    canvas = Image.new("RGB", (LABEL + SEEDS * width, len(found.lines) * height), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
    for row, one in enumerate(found.lines):
        pen.text((6, row * height + 6), one.name.replace(", ", "\n"), fill="black", font=font)
        seeds = [seed for seed in range(one.pictures) if one.shelf.has(seed)][:SEEDS]
        for column, seed in enumerate(seeds):
            thumb = Image.fromarray(one.shelf.picture(seed)).resize((width, height))
            canvas.paste(thumb, (LABEL + column * width, row * height))
    return canvas
