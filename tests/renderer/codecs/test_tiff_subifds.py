"""SubIFDs of a BigTIFF by places of 32 bits: the same pages, found by others' readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from frieze.renderer.codecs.tiff_subifds import IFD, IFD8, SUBIFDS, narrow_subifds


def pyramid(path: Path, levels: int, *, big: bool = True) -> list[np.ndarray]:
    """Write a TIFF of so many levels below the first."""
    pages = [np.full((64 >> i, 64 >> i, 3), 10 * i + 1, np.uint8) for i in range(levels + 1)]
    with tifffile.TiffWriter(path, bigtiff=big, byteorder="<") as writer:
        for index, page in enumerate(pages):
            below = {"subfiletype": 1} if index else {"subifds": levels}
            writer.write(page, photometric="rgb", metadata=None, **below)
    return pages


@pytest.mark.parametrize("levels", [3, 4])
def test_every_level_is_found_by_others(tmp_path: Path, levels: int) -> None:
    import OpenImageIO
    import pyvips

    path = tmp_path / "a.tif"
    pages = pyramid(path, levels)
    narrow_subifds(path)
    with tifffile.TiffFile(path) as file:
        assert file.pages.first.tags[SUBIFDS].dtype == IFD
        found = [level.asarray() for level in file.series[0].levels]
    assert all(np.array_equal(*pair) for pair in zip(found, pages, strict=True))
    for index, page in enumerate(pages[1:]):
        level = pyvips.Image.new_from_file(str(path), subifd=index)
        assert np.array_equal(level.numpy(), page)
    image = OpenImageIO.ImageBuf(str(path))
    assert np.array_equal(image.get_pixels(OpenImageIO.UINT8), pages[0])


@pytest.mark.parametrize("levels", [2, 3])
def test_of_two_and_of_places_with_more_bits_the_largest_level_is_kept(
    tmp_path: Path, levels: int
) -> None:
    path = tmp_path / "a.tif"
    pages = pyramid(path, levels)
    with tifffile.TiffFile(path) as file:
        places = file.pages.first.subifds
    assert places is not None
    narrow_subifds(path, **({} if levels == 2 else {"most": places[1]}))
    with tifffile.TiffFile(path) as file:
        tag = file.pages.first.tags[SUBIFDS]
        assert (tag.dtype, tag.count, tag.value) == (IFD8, 1, places[:1])
        found = [level.asarray() for level in file.series[0].levels]
    assert all(np.array_equal(*pair) for pair in zip(found, pages[:2], strict=True))


@pytest.mark.parametrize(("levels", "big"), [(0, True), (1, True), (3, False)])
def test_others_stay_as_they_are(tmp_path: Path, levels: int, *, big: bool) -> None:
    path = tmp_path / "a.tif"
    pyramid(path, levels, big=big)
    before = path.read_bytes()
    narrow_subifds(path)
    assert path.read_bytes() == before


def test_what_is_no_tiff_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"II")
    narrow_subifds(path)
    assert path.read_bytes() == b"II"
