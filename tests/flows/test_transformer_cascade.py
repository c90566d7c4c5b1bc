"""CineScale with transformers of every family: the same on any ranks, after a stop, as a clip."""

from __future__ import annotations

import itertools
import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import checkpoints
from contracts.gallery import LAYOUTS, Gallery, differ, equal
from frieze.cluster.comm import solo
from frieze.cluster.layout import Band, Mesh
from frieze.renderer import Event, RenderCancelledError, plan, render, resume
from frieze.renderer.extrapolation.transformer_cascade import OF_POSITIONS
from support.estimates import estimate, on_threads, planned, start
from support.shared import kept
from tolerances import CONTROL, EXACT_FLOAT64

pytestmark = pytest.mark.usefixtures("kept_encoders")

# Tiny checkpoints say here that they know 32 x 32 pixels: 2 x 2 tokens.
TRAINED = {"training_size": 32, "training_frames": 9}
# Ways to draw; laws and factors that show on so few tokens.
WAYS: dict[str, dict[str, Any]] = {
    "ntk": {"attention": "tokens", "row_factor": 20, "column_factor": 5, "frame_factor": 3},
    "rectified": {"positions": "rectified"},
    "fused": {"fusion": "hw", "jitter": "released"},
}
RING_2, RING_3, ULYSSES, RING_ULYSSES = (
    Mesh(ring=2),
    Mesh(ring=3),
    Mesh(ulysses=2),
    Mesh(ring=2, ulysses=2),
)
# Rows of tokens of each rank, of seven.
ROWS = {1: (7,), 2: (5, 2), 3: (3, 1, 3), 4: (2, 1, 1, 3)}
FAMILIES = ("flux", "flux2", "sd3", "sd35", "qwen", "zimage", "wan", "wan22", "wan22-small")
QUICK = {
    ("flux", "ntk"): (RING_3,),
    ("flux", "rectified"): (RING_2, RING_ULYSSES),
    ("flux", "fused"): (RING_2,),
    ("flux2", "rectified"): (RING_3,),
    ("sd3", "ntk"): (RING_2,),
    ("qwen", "ntk"): (ULYSSES,),
    ("zimage", "rectified"): (ULYSSES,),
    ("wan", "ntk"): (RING_ULYSSES,),
    ("wan", "rectified"): (RING_3,),
}


@kept
def folder(name: str, root: Path) -> Path:
    """A tiny checkpoint of a small trained size."""
    built = checkpoints.build(name, root / name)
    (built / "frieze.json").write_text(json.dumps(TRAINED))
    return built


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


def made(built: Path, mesh: Mesh, own: tuple[Band, ...] | None = None, **fields: Any) -> Any:
    """The plan of the cascade's last stage, of seven rows of tokens, or of one band of them."""
    name = built.name
    unit, cells = (32, 2) if name == "wan22-small" else (16, 1 if "flux2" in name else 2)
    edges = [0, *itertools.accumulate(cells * rows for rows in ROWS[mesh.world_size])]
    bands = own or tuple(Band(*pair) for pair in itertools.pairwise(edges))
    layout = {key: value for key, value in LAYOUTS[name].items() if key != "height"}
    defaults = {
        "height": unit * bands[-1].stop // cells,
        "width": 4 * unit,
        "chunk": unit,
        "num_inference_steps": 4,
        "method": "cinescale",
        "negative_prompt": "grey",
    }
    return planned(built, bands, mesh, **defaults | layout | fields)


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def check_same(built: Path, way: str, on: tuple[Mesh, ...]) -> None:
    """On each of the meshes what one rank draws, and neither the plain model nor bands alone."""
    step, options = 1, WAYS[way]
    if built.name.startswith("sd3"):
        options = {name: value for name, value in options.items() if name not in OF_POSITIONS}
    whole = made(built, Mesh(), method_options=options)
    expected = on_threads(whole, step, torch.float64, built)
    for mesh in on:
        found = on_threads(made(built, mesh, method_options=options), step, torch.float64, built)
        assert distance(found, expected) <= EXACT_FLOAT64, mesh
    plain = on_threads(made(built, Mesh(), method="none"), step, torch.float64, built)
    assert distance(plain, expected) > CONTROL
    parts, canvas = [], start(whole, torch.float64)
    for band in made(built, RING_2, method_options=options).stages[-1].bands:
        alone = made(built, Mesh(), (Band(0, band.rows),), method_options=options)
        rows = canvas[..., band.start : band.stop, :]
        parts.append(estimate(solo(), alone, step, rows, built))
    assert distance(torch.cat(parts, dim=-2), expected) > CONTROL


@pytest.mark.parametrize(("family", "way"), QUICK)
def test_every_family_is_the_same_on_ranks(root: Path, family: str, way: str) -> None:
    check_same(folder(family, root), way, QUICK[family, way])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "way"),
    [
        pair
        for pair in itertools.product(FAMILIES, WAYS)
        if not pair[0].startswith("sd3") or pair[1] != "rectified"  # it rotates no positions
    ],
)
def test_every_family_in_every_way_is_the_same_on_any_ranks(
    root: Path, family: str, way: str
) -> None:
    """Two, three and four unequal bands on a ring, on Ulysses and on both."""
    check_same(folder(family, root), way, (RING_2, RING_3, ULYSSES, RING_ULYSSES))


# ---- whole renders


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    gallery = Gallery(tmp_path_factory.mktemp("cascade"))
    for name in ("wan", "flux"):
        (gallery.checkpoint(name) / "frieze.json").write_text(json.dumps(TRAINED))
    return gallery


CASCADED = {"method": "cinescale", "height": 64, "width": 32, "num_inference_steps": 4}
CLIP = CASCADED | {"width": 64, "num_frames": 9, "method_options": WAYS["ntk"] | {"detail": 1.0}}


def test_a_clip_of_two_stages_goes_on_to_the_same_bytes(gallery: Gallery, tmp_path: Path) -> None:
    """Nine frames from latents to MP4 on two ranks, stopped in the second stage."""
    films = []
    for name, is_stopped in (("whole", False), ("stopped", True)):
        store, film = tmp_path / f"{name}.zarr", tmp_path / f"{name}.mp4"
        spec = gallery.spec("wan", out=str(store), workers=2, **CLIP)
        assert [stage.num_steps for stage in plan(spec).stages] == [4, 3]
        cancel, seen = threading.Event(), []

        def listen(event: Event, cancel: Any = cancel, seen: list[str] = seen) -> None:
            seen.append(event.kind)
            if seen.count("step") == 6:
                cancel.set()

        if is_stopped:
            with pytest.raises(RenderCancelledError):
                render(spec, exports=(film,), on_event=listen, cancel=cancel)
            resume(store)
        else:
            render(spec, exports=(film,))
        films.append((film.read_bytes(), gallery.opened("wan", store)))
    (whole, drawn), (again, same) = films
    assert whole == again
    assert drawn.latents_CTHW.equal(same.latents_CTHW)
    differ(drawn, gallery.fresh("wan", workers=2, **CLIP | {"method_options": {}}))


def test_a_picture_is_the_same_on_three_ranks(gallery: Gallery) -> None:
    """Through pixels, its keys rectified."""
    fields = CASCADED | {"method_options": WAYS["rectified"], "height": 112}
    whole = gallery.fresh("flux", **fields)
    equal(gallery.fresh("flux", **fields, workers=3), whole)
    differ(gallery.fresh("flux", **fields | {"method": "none", "method_options": {}}), whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "source"),
    [("wan", "init"), ("flux", "init"), ("wan-i2v", "image"), ("wan22", "init")],
)
def test_a_clip_is_redrawn_and_a_frame_animated(gallery: Gallery, family: str, source: str) -> None:
    """Video to video begins at the second stage, on noised latents of what is handed in."""
    (gallery.checkpoint(family) / "frieze.json").write_text(json.dumps(TRAINED))
    fields = CASCADED | {"height": 112, "width": 64, source: gallery.picture("wan")}
    fields |= {"num_frames": 5} if "wan" in family else {}
    made = plan(gallery.spec(family, **fields))
    assert len(made.stages) == (1 if source == "init" else 2)
    whole = gallery.fresh(family, **fields)
    equal(gallery.fresh(family, **fields, workers=2), whole)
    differ(gallery.fresh(family, **fields | {"seed": 9}), whole)


@pytest.mark.parametrize("family", ["flux", "wan"])
def test_at_the_trained_size_the_picture_is_the_plain_models(gallery: Gallery, family: str) -> None:
    fields = CASCADED | {"height": 32, "num_inference_steps": 2}
    fields |= {"num_frames": 9} if family == "wan" else {}
    ours, plain = (
        gallery.fresh(family, **fields | {"method": name}) for name in ("cinescale", "none")
    )
    assert ours.latents_CTHW.equal(plain.latents_CTHW)
