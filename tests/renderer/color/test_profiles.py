"""ICC profiles: what published primaries make of them, and what is refused in one line."""

from __future__ import annotations

import hashlib
import io
import struct
import time
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import ImageCms

from frieze.renderer.color.profiles import NAMED, named, parsed, profile
from frieze.renderer.errors import ExportError
from support.colorimetry import D50, matrix, press_profile
from tolerances import FIXED_POINT


@pytest.mark.parametrize("name", NAMED)
def test_a_named_profile_says_what_is_published(name: str) -> None:
    """By Pillow's Little CMS, against primaries adapted to D50 here."""
    data = named(name).data
    found = ImageCms.ImageCmsProfile(io.BytesIO(data)).profile
    colorants = [found.red_colorant, found.green_colorant, found.blue_colorant]
    assert found.profile_description == NAMED[name].name
    columns = np.stack([np.array(each[0]) for each in colorants], axis=1)
    assert np.abs(columns - matrix(name)).max() < FIXED_POINT
    others = [matrix(other) for other in NAMED if other != name]
    assert min(np.abs(columns - other).max() for other in others) > 100 * FIXED_POINT, "control"
    whole = np.rint(columns * 65536).sum(axis=1)
    assert np.array_equal(whole, np.rint(D50 * 65536)), "equal parts are white to the last bit"
    assert (found.device_class, found.xcolor_space.strip()) == ("mntr", "RGB")


def test_it_is_the_same_at_any_time_and_bears_its_own_digest() -> None:
    """A library's has the second in which it was made."""
    own = [named(name).data for name in NAMED]
    theirs = imagecodecs.cms_profile("srgb")
    while imagecodecs.cms_profile("srgb") == theirs:
        time.sleep(0.05)
    for name, data in zip(NAMED, own, strict=True):
        assert NAMED[name].icc() == data
        assert len(data) == struct.unpack(">I", data[:4])[0]
        plain = data[:44] + bytes(4) + data[48:64] + bytes(4) + data[68:84] + bytes(16) + data[100:]
        assert data[84:100] == hashlib.md5(plain, usedforsecurity=False).digest()


def test_what_is_no_profile_of_a_device_is_refused_in_one_line(tmp_path: Path) -> None:
    whole = press_profile()
    wrong = {
        "text.icc": (b"hello", "is no ICC profile"),
        "empty.icc": (b"", "is no ICC profile"),
        "cut.icc": (whole[:3000], "is a damaged ICC profile"),
        "link.icc": (press_profile(device_class=b"link"), "of class device link"),
        "abstract.icc": (press_profile(device_class=b"abst"), "of class abstract"),
        "lab.icc": (press_profile(device_class=b"spac", space=b"Lab "), "'Lab' (colour space)"),
        "odd.icc": (press_profile(device_class=b"\x1b[2J"), "class '\\x1b[2J'"),
    }
    for name, (data, fault) in wrong.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ExportError) as caught:
            profile(str(tmp_path / name), ExportError)
        message = str(caught.value)
        assert fault in message, message
        assert str(tmp_path / name) in message
        assert "adobe-rgb" in message, "what would work"
        assert message.isprintable()
    for name, fault in (("p3", "no colour space 'p3'"), (str(tmp_path), "is a folder")):
        with pytest.raises(ExportError, match=fault):
            profile(name, ExportError)
    with pytest.raises(ExportError, match="there is no file"):
        profile(str(tmp_path / "gone.icc"), ExportError)


def test_a_printers_profile_and_any_case_of_a_name_are_taken(tmp_path: Path) -> None:
    (tmp_path / "press.icc").write_bytes(press_profile())
    found = profile(str(tmp_path / "press.icc"), ExportError)
    assert (found.space, found.channels) == ("CMYK", 4)
    assert profile("Display-P3", ExportError) == named("display-p3")
    assert parsed(named("srgb").data, "x", ExportError).space == "RGB"
