"""Pictures of the quality benchmark and what is measured of each, kept so that a run can go on.

WORK/CELL/ROW-DIGEST/SEED.png and SEED.npz; the digest names all that decides the pictures. What is
measured is measured anew where the metrics, the features or the oracle have changed since.
Shape legend: K crops, F features, T lags.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench import features, quality_entropy, quality_rows
from bench import quality_metrics as metrics
from bench.quality_rows import Cell, Pixels, Row, Settings
from frieze.renderer.demo import oracle, scenes


@dataclass(frozen=True)
class Measures:
    """One picture, measured."""

    seconds: float
    suns: int
    colour: bool
    upright: bool
    detail: float
    border_step: float
    across_T: NDArray[np.float64]
    down_T: NDArray[np.float64]
    layout_KF: NDArray[np.float32]
    crops_KF: NDArray[np.float32]


def measure(picture: Pixels, prompt: str, cell: Cell, seconds: float) -> Measures:
    """All that is measured of one picture. `colour`: there are suns, all of the asked colour."""
    verdict = oracle.judge(picture)
    small = Image.fromarray(picture).resize(cell.native[::-1], Image.Resampling.BOX)
    network = _network()
    return Measures(
        seconds=seconds,
        suns=verdict.suns,
        colour=set(verdict.colours) == {scenes.parse(prompt).sun},
        upright=verdict.upright,
        detail=verdict.detail,
        border_step=metrics.border_step(picture),
        across_T=metrics.lag_profile(picture, 1),
        down_T=metrics.lag_profile(picture, 0),
        layout_KF=features.features(network, [np.asarray(small)]),
        crops_KF=features.features(network, metrics.crops(picture)),
    )


@functools.cache
def _network() -> features.Network:
    return features.load()


@functools.cache
def _digest() -> str:
    """Of all that decides what is measured."""
    _network()
    files = [metrics.__file__, features.__file__, features.WEIGHTS, oracle.__file__, __file__]
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()[:8]


@dataclass(frozen=True)
class Shelf:
    """The pictures of one row of one cell."""

    folder: Path
    row: Row
    cell: Cell
    settings: Settings

    @staticmethod
    def of(work: Path, row: Row, cell: Cell, settings: Settings) -> Shelf:
        slug = re.sub(r"[^a-z0-9]+", "-", row.name.lower()).strip("-")
        name = f"{slug}-{row.digest(cell, settings)}"
        return Shelf(work / str(cell) / name, row, cell, settings)

    def has(self, seed: int) -> bool:
        """Whether a picture is drawn."""
        return self._picture(seed).exists()

    def draw(self, seed: int) -> None:
        """Draw a picture and measure it; what is there already is left alone."""
        if self.has(seed):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        picture, seconds = quality_rows.draw(self.row, self.cell, self.settings, seed)
        (self.folder / f"{seed:04}.seconds").write_text(str(seconds))
        fresh = self.folder / f"{seed:04}.new"
        Image.fromarray(picture).save(fresh, format="PNG")
        fresh.replace(self._picture(seed))
        self.measures(seed)

    def picture(self, seed: int) -> Pixels:
        """A picture that is drawn."""
        return np.array(Image.open(self._picture(seed)))

    def measures(self, seed: int) -> Measures:
        """What is measured of a picture."""
        kept = self.folder / f"{seed:04}-{_digest()}.npz"
        if not kept.exists():
            seconds = float((self.folder / f"{seed:04}.seconds").read_text())
            found = measure(self.picture(seed), quality_rows.prompt(seed), self.cell, seconds)
            np.savez(kept.with_suffix(".new.npz"), **asdict(found))
            kept.with_suffix(".new.npz").replace(kept)
        with np.load(kept) as values:
            return Measures(**{name: values[name][()] for name in values.files})

    def lacks_entropy(self, seed: int) -> bool:
        """Whether the entropy of attention can be told for a seed and is not yet."""
        return self.row.is_direct and not (self.folder / f"{seed:04}.entropy").exists()

    def entropy(self, seed: int) -> float | None:
        """The entropy of attention for a seed, measured once."""
        kept = self.folder / f"{seed:04}.entropy"
        if not kept.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            found = quality_entropy.entropy(self.row, self.cell, self.settings, seed)
            kept.write_text(json.dumps(found))
        value: float | None = json.loads(kept.read_text())
        return value

    def entropies(self, number: int) -> list[float]:
        """Those measured so far of the first seeds."""
        kept = (self.folder / f"{seed:04}.entropy" for seed in range(number))
        found = (json.loads(path.read_text()) for path in kept if path.exists())
        return [value for value in found if value is not None]

    def _picture(self, seed: int) -> Path:
        return self.folder / f"{seed:04}.png"


def real_shelf(work: Path, cell: Cell, settings: Settings) -> Shelf:
    """Where real scenes are that rows are held to."""
    return Shelf.of(work, Row("reference", "reference"), cell, settings)


def real(work: Path, cell: Cell, settings: Settings, number: int) -> list[list[Measures]]:
    """For each seed, real scenes with its prompt and with layouts that no row draws, measured."""
    shelf, each = real_shelf(work, cell, settings), quality_rows.REALS
    for index in range(each * number):
        shelf.draw(index)
    return [[shelf.measures(each * seed + i) for i in range(each)] for seed in range(number)]
