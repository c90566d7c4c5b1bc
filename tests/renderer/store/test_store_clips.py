"""A clip's store gives back every frame, bit for bit, and hands frames out as they are drawn.

Shape suffixes: C channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path

import numpy as np
import ome_zarr_models.v05
import pytest
import tensorstore
import zarr

from contracts.export import clip, draw, make_store, picture, places
from frieze.renderer.errors import StoreError
from frieze.renderer.store.layout import LatentArray, StoreLayout, halve, required_bytes
from frieze.renderer.store.store import Store
from frieze.renderer.worker.writers.blocks import BlockWriter
from tolerances import AMPLE

PAINTED = LatentArray("0-picture", (1, 3, 9, 48, 10), 16, chunk_frames=1)
LATENTS = (LatentArray("0", (2, 4, 3, 24, 10), 8), PAINTED)


def noise(frames: int, height: int, width: int, bits: int = 8) -> np.ndarray:
    """Frames [T, H, W, 3] of which no two rows are alike."""
    return np.stack([np.roll(picture(height, width, bits), 5 * t, axis=0) for t in range(frames)])


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("size", "block"), [((600, 344), (256, 344)), ((300, 300), (64, 128)), ((90, 31), (512, 512))]
)
def test_frames_and_every_pyramid_level_come_back(
    tmp_path: Path, size: tuple[int, int], block: tuple[int, int], bits: int
) -> None:
    pixels_THWC = noise(3, *size, bits)
    store = Store.open(make_store(tmp_path / "a.zarr", pixels_THWC, block).path)
    found = list(store.frames_in_order())
    assert [frame for frame, _ in found] == [0, 1, 2]
    np.testing.assert_array_equal(np.stack([pixels for _, pixels in found]), pixels_THWC)
    assert not np.array_equal(found[0][1], pixels_THWC[1]), "control"
    for frame, pixels_HWC in enumerate(pixels_THWC):
        for level in store.layout.levels:
            rows_HWC = store.read_rows(0, level.height, level.index, frame)
            np.testing.assert_array_equal(rows_HWC, pixels_HWC)
            pixels_HWC = halve(pixels_HWC)


def test_a_block_is_one_frame_and_one_file(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", clip(3, 96, 64), (32, 64), finish=False)
    assert store.layout.num_blocks == 9
    assert list(store.write_rows(32, clip(3, 96, 64)[1, 32:64], 1)) == ["1/1/0"]
    folder = store.path / "0"
    files = [file for file in (folder / "c").rglob("*") if file.is_file()]
    assert [file.relative_to(folder).as_posix() for file in files] == ["c/1/0/1/0"]
    done = {"0/1/0", "1/1/0"}
    assert store.covers(done, 40, 1)
    assert not store.covers(done, 40, 2)
    assert not store.covers(done, 40)
    assert store.covers(done | {"2/1/0"}, 40)


def test_frames_that_are_not_there_are_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", clip(3, 64, 64), (32, 64), finish=False)
    for frame in (None, 3, -1):
        with pytest.raises(StoreError, match="0 to 2 work"):
            store.write_rows(0, clip(1, 32, 64)[0], frame)
    still = make_store(tmp_path / "b.zarr", picture(64, 64), (32, 64), finish=False)
    with pytest.raises(StoreError, match="of a picture"):
        still.write_rows(0, picture(32, 64), 1)
    with pytest.raises(StoreError, match="is a clip"):
        store.in_order()
    with pytest.raises(StoreError, match="is a picture"):
        still.frames_in_order()
    for frames, fps in ((3, None), (None, 8.0), (0, 8.0), (3, 0.0)):
        with pytest.raises(StoreError, match="a second"):
            StoreLayout(64, 64, (32, 64), frames=frames, fps=fps)


def test_a_pictures_store_says_nothing_of_frames(tmp_path: Path) -> None:
    """Stores made before there were clips, and pictures now, read and look the same."""
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 64), latents=LATENTS[:1])
    layout = json.loads((store.path / "frieze" / "run.json").read_text())["layout"]
    assert set(layout) == {
        *("height", "width", "block", "dtype", "channels", "chunk", "latents", "num_levels")
    }
    assert set(layout["latents"][0]) == {"name", "shape", "chunk_rows"}
    made = StoreLayout(64, 64, (32, 64), frames=3, fps=12.5, latents=LATENTS)
    assert StoreLayout.from_json(json.loads(json.dumps(made.as_json()))) == made


def test_frames_come_in_order_while_they_are_drawn(tmp_path: Path) -> None:
    pixels_THWC = noise(4, 96, 32)
    store = make_store(tmp_path / "a.zarr", pixels_THWC, (32, 32), finish=False)
    todo = places(store.layout, 32)
    random.Random(0).shuffle(todo)
    seen: list[tuple[int, np.ndarray]] = []
    reader = threading.Thread(
        target=lambda: seen.extend(Store.open(store.path).frames_in_order(wait=True, poll=0.01)),
        daemon=True,
    )
    reader.start()
    for frame, row in todo:
        draw(store, pixels_THWC, row, 32, frame)
    reader.join(AMPLE)
    assert [frame for frame, _ in seen] == [0, 1, 2, 3]
    np.testing.assert_array_equal(np.stack([pixels for _, pixels in seen]), pixels_THWC)


def test_an_unfinished_clip_gives_what_it_has(tmp_path: Path) -> None:
    pixels_THWC = noise(3, 64, 32)
    store = make_store(tmp_path / "a.zarr", pixels_THWC, (32, 32), finish=False)
    for frame, row in ((0, 0), (0, 32), (1, 0), (2, 0), (2, 32)):
        draw(store, pixels_THWC, row, 32, frame)
    frames = store.frames_in_order()
    assert next(frames)[0] == 0
    with pytest.raises(StoreError, match="5 of 6 blocks"):
        next(frames)
    with pytest.raises(StoreError, match="5 of 6 blocks"):
        store.finish()


def test_the_writer_takes_frames(tmp_path: Path) -> None:
    pixels_THWC = clip(3, 64, 32)
    store = make_store(tmp_path / "a.zarr", pixels_THWC, (32, 32), finish=False)
    with BlockWriter(store) as writer:
        for frame, row in places(store.layout, 32):
            assert frame is not None
            writer.put(row, pixels_THWC[frame, row : row + 32], frame)
    assert sorted(writer.drain()) == sorted(store.layout.ids(0, 64))
    np.testing.assert_array_equal(store.read_rows(0, 64, frame=2), pixels_THWC[2])


def test_latents_are_written_frame_group_by_frame_group(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", clip(3, 64, 64), latents=LATENTS, finish=False)
    bits = np.random.default_rng(0).integers(0, 2**32, (3, 9, 48, 10), dtype=np.uint32)
    painted_CTHW = bits.view(np.float32)
    folder = store.path / "frieze" / "latents" / "0-picture"
    written: set[tuple[Path, int]] = set()
    for rows in (slice(0, 16), slice(16, 48)):
        for frames in (slice(0, 1), slice(1, 5), slice(5, 9)):
            store.save_latents(1, 0, rows, painted_CTHW[:, frames, rows], frames=frames)
            files = {(f, f.stat().st_mtime_ns) for f in (folder / "c").rglob("*") if f.is_file()}
            assert written <= files, "a chunk was written twice"
            written = files
    found_CTHW = Store.open(store.path).load_latents(1, 0, slice(0, 48))
    np.testing.assert_array_equal(found_CTHW.view(np.uint32), bits)
    part_CTHW = store.load_latents(1, 0, slice(7, 33), frames=slice(3, 6))
    np.testing.assert_array_equal(part_CTHW.view(np.uint32), bits[:, 3:6, 7:33])
    with pytest.raises(StoreError, match="frames 0 to 2 cut through"):
        store.save_latents(0, 0, slice(0, 8), np.ones((4, 2, 8, 10), "f4"), frames=slice(0, 2))
    with pytest.raises(StoreError, match="float32"):
        store.save_latents(1, 0, slice(0, 16), np.ones((3, 2, 16, 10), "f4"), frames=slice(0, 1))


def test_a_clip_fits_in_the_bytes_it_asks_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise_THWC = rng.integers(0, 256, (3, 300, 500, 3)).astype(np.uint8)
    store = make_store(tmp_path / "a.zarr", noise_THWC, (256, 500), latents=LATENTS)
    for index, array in enumerate(LATENTS):
        slots, *shape = array.shape
        for slot in range(slots):
            store.save_latents(index, slot, slice(0, shape[2]), np.ones(shape, "f4"))
    used = sum(file.stat().st_size for file in store.path.rglob("*") if file.is_file())
    still = StoreLayout(300, 500, (256, 500))
    assert noise_THWC.nbytes < used < required_bytes(store.layout)
    assert used > required_bytes(still) - 2**20, "control: one frame's, without the constant"


def test_other_libraries_open_the_clip(tmp_path: Path) -> None:
    pixels_THWC = noise(3, 300, 500)
    store = make_store(tmp_path / "a.zarr", pixels_THWC, (256, 500), fps=12.5)
    image = ome_zarr_models.v05.Image.from_zarr(zarr.open_group(store.path, mode="r"))
    scales = image.attributes.ome.multiscales[0]
    assert [(axis.name, axis.type) for axis in scales.axes] == [
        *(("t", "time"), ("c", "channel"), ("y", "space"), ("x", "space"))
    ]
    assert scales.axes[0].unit == "second"
    assert scales.datasets[0].coordinateTransformations[0].scale == [0.08, 1, 1, 1]
    assert scales.datasets[1].coordinateTransformations[0].scale == [0.08, 1, 2, 2]
    driver = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{store.path}/0"}}
    found = tensorstore.open(driver).result()
    assert found.domain.labels == ("t", "c", "y", "x")
    np.testing.assert_array_equal(np.moveaxis(found.read().result(), 1, -1), pixels_THWC)
