"""What is measured of each picture of the decoder's benchmark, kept beside it, and of each row.

Shape legend: K crops, F features.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench import features, quality_features, quality_rows
from bench import quality_decoder_latents as latents
from bench import quality_decoder_metrics as own_metrics
from bench import quality_metrics as metrics
from bench.quality_decoder_latents import Source
from bench.quality_decoder_rows import BLOCK, Shelf
from bench.quality_metrics import Estimate
from bench.quality_rows import NATIVE, REALS, Pixels
from frieze.renderer.demo import oracle, scenes

Values = dict[str, float]
# What is told of a row as a mean over its pictures; NaN where a column has no meaning for it.
MEANS = (
    "detail",
    "stray firs",
    "radius %",
    "flecks ppm",
    "half off",
    "drift",
    "PSNR",
    "seconds/MP",
)
SHARES = ("one sun", "right colour", "landscape")
RATIOS = ("seam", "token grid")


def measure(picture: Pixels, half: Pixels | None, low: Pixels, prompt: str) -> Values:
    """All but features of one picture; `low` is what it was enlarged from."""
    verdict, asked = oracle.judge(picture), scenes.parse(prompt)
    edges = list(range(BLOCK, len(picture), BLOCK))
    across, beside = own_metrics.seam(picture, edges)
    return {
        "detail": verdict.detail,
        "stray firs": float(oracle.stray_firs(picture)),
        "one sun": float(verdict.suns == 1),
        "right colour": float(set(verdict.colours) == {asked.sun}),
        "landscape": float(
            verdict.upright and (verdict.time, verdict.mountains) == (asked.time, asked.mountains)
        ),
        "radius %": 100 * own_metrics.radius_variation(picture),
        "flecks ppm": own_metrics.flecks(picture),
        "half off": float("nan") if half is None else own_metrics.away(picture, half),
        "drift": own_metrics.drift(picture, low),
        "across": across,
        "beside": beside,
        "token grid": own_metrics.grid(picture),
    }


def of_picture(shelf: Shelf, source: Source, seed: int) -> Values:
    """What is measured of a picture, once."""
    kept = shelf.file(source, seed).with_suffix(f".{_digest()}.json")
    if not kept.exists():
        picture = shelf.picture(source, seed)
        scene, side = scenes.scene_from(seed), len(picture)
        is_real = shelf.row.kind == "scenes"
        low = latents.small(shelf.work, source, seed, shelf.settings).pixels
        if is_real:
            low = scenes.draw(scene, NATIVE, NATIVE)
        found = measure(picture, shelf.half(source, seed), low, scenes.prompt_of(scene))
        truth = scenes.draw(scene, side, side)
        has_truth = source == "encoded" and not is_real
        found["PSNR"] = own_metrics.psnr(picture, truth) if has_truth else float("nan")
        found["seconds/MP"] = shelf.seconds(source, seed) / side**2 * 1e6
        kept.write_text(json.dumps(found))
    values: Values = json.loads(kept.read_text())
    return values


@functools.cache
def _digest() -> str:
    files = [oracle.__file__, own_metrics.__file__, __file__]
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()[:8]


def of_row(shelf: Shelf, source: Source, seeds: Sequence[int]) -> dict[str, Estimate]:
    """Every column of a row over seeds that are drawn, with intervals of 95 %."""
    rng = np.random.default_rng(0)
    each = [of_picture(shelf, source, seed) for seed in seeds]
    found = {
        name: metrics.mean([v for row in each if not np.isnan(v := row[name])], rng)
        for name in MEANS
    }
    found |= {name: metrics.share([bool(row[name]) for row in each]) for name in SHARES}
    across, beside = (np.array([row[name] for row in each]) for name in ("across", "beside"))
    found["seam"] = metrics.ratio(across, beside, rng)
    found["token grid"] = metrics.mean([row["token grid"] for row in each], rng)
    if source == "drawn":
        for space in spaces():
            for part in ("layout", "crops"):
                drawn = [_features(shelf.file(source, s), space)[part] for s in seeds]
                real = [_real(shelf.work, shelf.side, s, space)[part] for s in seeds]
                name = f"{part.removesuffix('s')} KID, {space}"
                found[name] = metrics.kid(np.stack(drawn), np.stack(real), rng)
    return found


def spaces() -> tuple[str, ...]:
    """Spaces of features: ours, and Lite2's where its weights are installed."""
    return ("own", "Lite2") if quality_features.is_installed() else ("own",)


Features = dict[str, NDArray[np.float32]]


def _features(file: Path, space: str) -> Features:
    """Of a picture's file: `layout` [1, F] of it at the trained size, `crops` [K, F]; once."""
    kept = file.with_suffix(f".{space}.npz")
    if not kept.exists():
        np.savez(kept, **_of_pictures([np.array(Image.open(file))], space))
    with np.load(kept) as values:
        return {name: values[name] for name in values.files}


def _real(work: Path, side: int, seed: int, space: str) -> Features:
    """Of real scenes with a seed's prompt, in layouts that no row draws."""
    kept = work / str(side) / "real" / f"{seed:04}.{space}.npz"
    if not kept.exists():
        numbers = range(REALS * seed, REALS * (seed + 1))
        drawn = [scenes.draw(quality_rows.real_scene(number), side, side) for number in numbers]
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, **_of_pictures(drawn, space))
    with np.load(kept) as values:
        return {name: values[name] for name in values.files}


def _of_pictures(pictures: list[Pixels], space: str) -> Features:
    size = (NATIVE, NATIVE)
    layouts = [
        np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
        for picture in pictures
    ]
    crops = [crop for picture in pictures for crop in metrics.crops(picture)]
    if space == "own":
        network = features.load()
        return {
            "layout": features.features(network, layouts),
            "crops": features.features(network, crops),
        }
    return {
        "layout": quality_features.features(layouts),
        "crops": quality_features.features(crops),
    }
