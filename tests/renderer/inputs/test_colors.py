"""Pictures that are handed in: their ICC profiles are applied, kept, or refused in one line.

Shape suffixes: H rows, W columns, C channels.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image, ImageCms

from frieze.renderer.color.matrix_profile import MatrixProfile
from frieze.renderer.color.profiles import NAMED, named, parsed
from frieze.renderer.errors import ExportError, MediaError
from frieze.renderer.inputs import colors, media
from frieze.renderer.inputs.sources import fitted, look
from support.colorimetry import D50, PATCHES, delta_e, lab, press_profile, printed, xyz
from tolerances import COLOR_8_BITS, COLOR_INKS, COLOR_UNCONVERTED

P3, ADOBE = named("display-p3").data, named("adobe-rgb").data
# Colours of which all spaces of these tests have some, as numbers of Adobe RGB and Display P3.
INSIDE_HWC = np.rint((PATCHES[None, :24] / 255 * 0.35 + 0.3) * 255).astype(np.uint8)
_D65 = NAMED["srgb"].white
LINEAR = MatrixProfile("linear", (0.64, 0.33), (0.3, 0.6), (0.15, 0.06), _D65, (1.0,)).icc()


def saved(path: Path, pixels_HWC: np.ndarray, icc: bytes, mode: str = "RGB") -> Path:
    """A picture of any format that holds a profile."""
    if path.suffix == ".tif":
        kind = {"RGB": "rgb", "CMYK": "separated", "L": "minisblack"}[mode]
        tifffile.imwrite(path, pixels_HWC, photometric=kind, iccprofile=icc)
    else:
        more = {".webp": {"lossless": True}, ".jpg": {"quality": 100, "subsampling": 0}}
        options = more.get(path.suffix, {})
        Image.fromarray(pixels_HWC, mode).save(path, icc_profile=icc, **options)
    return path


def read(path: Path, wanted: colors.Colors = "srgb") -> np.ndarray:
    """Its one frame, [H, W, 3] in [0, 1]."""
    (frame_HWC,) = media.frames(path, wanted=wanted)
    return frame_HWC


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("name", ["display-p3", "adobe-rgb"])
def test_numbers_of_another_space_become_srgb(tmp_path: Path, name: str, suffix: str) -> None:
    """The same colours by formulas; without a profile the same numbers are others."""
    path = saved(tmp_path / f"a{suffix}", INSIDE_HWC, named(name).data)
    expected = lab(xyz(name, INSIDE_HWC / 255))
    assert delta_e(lab(xyz("srgb", read(path))), expected).max() < COLOR_8_BITS
    for wanted in ("own", "numbers"):
        assert np.allclose(read(path, wanted), INSIDE_HWC / 255, atol=1e-6), wanted
    plain = lab(xyz("srgb", INSIDE_HWC / 255))
    assert delta_e(plain, expected).max() > 1.5, "control"


def test_16_bits_and_floats_are_converted_as_finely(tmp_path: Path) -> None:
    deep_HWC = INSIDE_HWC.astype(np.uint16) * 257 + 77
    expected = lab(xyz("adobe-rgb", deep_HWC / 65535))
    tifffile.imwrite(tmp_path / "a.tif", deep_HWC, photometric="rgb", iccprofile=ADOBE)
    floats_HWC = (deep_HWC / 65535).astype(np.float32)
    tifffile.imwrite(tmp_path / "b.tif", floats_HWC, photometric="rgb", iccprofile=ADOBE)
    for name in ("a.tif", "b.tif"):
        found = lab(xyz("srgb", read(tmp_path / name)))
        assert delta_e(found, expected).max() < COLOR_8_BITS / 20


@pytest.mark.parametrize("suffix", [".tif", ".jpg"])
def test_inks_are_what_their_profile_says(tmp_path: Path, suffix: str) -> None:
    """Flat areas, which JPEG keeps; without a profile inks are the rest of light."""
    steps = np.array([0, 40, 80], np.uint8)
    inks_NC = np.stack(np.meshgrid(steps, steps, steps, np.uint8([30]), indexing="ij"), -1)
    inks_NC = inks_NC.reshape(-1, 4)
    cmyk_HWC = np.repeat(np.repeat(inks_NC[None], 16, axis=1), 16, axis=0)
    path = saved(tmp_path / f"a{suffix}", cmyk_HWC, press_profile(), "CMYK")
    found = read(path)[8, 8::16]
    measured = printed(inks_NC / 255)
    black = printed(np.ones(4))[1]
    expected = lab((measured - D50 * black) / (1 - black))  # black point compensation
    far = delta_e(lab(xyz("srgb", found)), expected)
    most = COLOR_INKS if suffix == ".tif" else 3 * COLOR_INKS  # JPEG's own steps
    assert far.max() < most
    naive = read(path, "numbers")[8, 8::16]
    assert delta_e(lab(xyz("srgb", naive)), expected).max() > COLOR_UNCONVERTED / 2, "control"


def test_grey_is_what_its_profile_says(tmp_path: Path) -> None:
    """A tone curve of its own; under a profile of RGB grey is equal parts of it."""
    grey_HW = np.arange(256, dtype=np.uint8).reshape(16, 16)
    curve = imagecodecs.cms_profile("gray", whitepoint=(0.3457, 0.3585), gamma=1.8)
    for name in ("a.png", "a.tif", "a.jpg"):
        found_HWC = read(saved(tmp_path / name, grey_HW, curve, "L"))
        linear = (grey_HW / 255) ** 1.8
        encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
        assert np.abs(found_HWC - encoded[..., None]).max() < 0.003
        assert np.abs(grey_HW / 255 - encoded).max() > 0.05, "control"
        found_HWC = read(saved(tmp_path / name, grey_HW, P3, "L"))
        assert np.abs(found_HWC - grey_HW[..., None] / 255).max() < 0.003, "sRGB's curve"


def test_alpha_is_no_colour(tmp_path: Path) -> None:
    """Colours are converted first, and lie on white then."""
    rgba_HWC = np.dstack([INSIDE_HWC, np.linspace(0, 255, 24).astype(np.uint8)[None]])
    Image.fromarray(rgba_HWC, "RGBA").save(tmp_path / "a.png", icc_profile=P3)
    opaque_HWC = read(saved(tmp_path / "b.png", INSIDE_HWC, P3))
    alpha_HWC = rgba_HWC[..., 3:] / 255
    expected_HWC = opaque_HWC * alpha_HWC + 1 - alpha_HWC
    assert np.abs(read(tmp_path / "a.png") - expected_HWC).max() < 1e-5
    once_HWC = np.stack([rgba_HWC[..., 3]] * 3, axis=-1)
    alone = media.alpha(tmp_path / "a.png")
    assert alone is not None
    assert np.allclose(alone, once_HWC[..., 0] / 255)


def numbered(path: Path, pixels_HWC: np.ndarray, primaries: int, transfer: int) -> Path:
    """A picture that states its colours by numbers of H.273."""
    if path.suffix == ".avif":
        told = {"primaries": primaries, "transfer": transfer, "matrix": 0}
        path.write_bytes(imagecodecs.avif_encode(pixels_HWC, level=100, **told))
    elif path.suffix == ".heic":
        image = pillow_heif.from_bytes("RGB", pixels_HWC.shape[1::-1], pixels_HWC.tobytes())
        told = {"color_primaries": primaries, "transfer_characteristics": transfer}
        image.save(path, quality=-1, matrix_coefficients=0, full_range_flag=1, **told)
    else:
        data = saved(path, pixels_HWC, LINEAR).read_bytes()  # a profile, which counts no more
        content = b"cICP" + bytes([primaries, transfer, 0, 1])
        chunk = struct.pack(">I", 4) + content + struct.pack(">I", zlib.crc32(content))
        path.write_bytes(data[:33] + chunk + data[33:])
    return path


NUMBERED = pytest.mark.parametrize("suffix", [".avif", ".heic", ".png"])
GREYISH_HWC = np.repeat(np.repeat(INSIDE_HWC, 8, 0), 8, 1)  # as large as encoders want


@NUMBERED
def test_colours_stated_by_numbers_become_srgb(tmp_path: Path, suffix: str) -> None:
    """Display P3 as phones write it, against formulas; the numbers of sRGB change nothing."""
    path = numbered(tmp_path / f"a{suffix}", GREYISH_HWC, 12, 13)
    expected = lab(xyz("display-p3", GREYISH_HWC / 255))
    assert delta_e(lab(xyz("srgb", read(path))), expected).max() < COLOR_8_BITS
    assert media.own_profile(path) is not None
    assert np.allclose(read(path, "own"), GREYISH_HWC / 255, atol=1e-6)
    for transfer in (1, 2, 13):
        path = numbered(tmp_path / f"b{suffix}", GREYISH_HWC, 1, transfer)
        assert np.allclose(read(path), GREYISH_HWC / 255, atol=1e-6)
        assert media.own_profile(path) is None
    plain = lab(xyz("srgb", read(path)))
    assert delta_e(plain, expected).max() > 1.5, "control"


@NUMBERED
def test_wide_and_linear_numbers_are_applied_too(tmp_path: Path, suffix: str) -> None:
    grey_HWC = np.full_like(GREYISH_HWC, 128)
    linear = read(numbered(tmp_path / f"a{suffix}", grey_HWC, 1, 8))
    assert np.allclose(linear, 0.7361, atol=0.002), "half of the light"
    wide = read(numbered(tmp_path / f"b{suffix}", grey_HWC, 9, 14))
    assert np.allclose(wide, 128 / 255, atol=0.002), "grey is grey"
    green_HWC = np.zeros_like(GREYISH_HWC)
    green_HWC[..., 1] = 255
    red, green, blue = read(numbered(tmp_path / f"c{suffix}", green_HWC, 9, 14))[0, 0]
    assert (red, green, blue) == pytest.approx((0, 1, 0), abs=0.01), "cut to sRGB"


@NUMBERED
@pytest.mark.parametrize(("numbers", "told"), [((9, 16), "PQ"), ((9, 18), "HLG"), ((4, 13), "4 ")])
def test_numbers_that_cannot_be_taken_are_one_line(
    tmp_path: Path, suffix: str, numbers: tuple[int, int], told: str
) -> None:
    path = numbered(tmp_path / f"a{suffix}", GREYISH_HWC, *numbers)
    for tell in (read, media.own_profile):
        with pytest.raises(MediaError, match=told) as caught:
            tell(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert read(path, "numbers").shape == GREYISH_HWC.shape, "a mask has no colours"


def test_profiles_of_srgb_change_nothing(tmp_path: Path) -> None:
    """Whoever made them: numbers stay to the last bit."""
    theirs = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for icc in (named("srgb").data, theirs, imagecodecs.cms_profile("srgb")):
        path = saved(tmp_path / "a.png", INSIDE_HWC, icc)
        assert np.array_equal(read(path), (INSIDE_HWC / np.float32(255)).astype(np.float32))
    assert not np.array_equal(read(saved(tmp_path / "a.png", INSIDE_HWC, P3)), INSIDE_HWC / 255)


def test_what_a_network_takes_for_srgb_is_kept_as_it_is(tmp_path: Path) -> None:
    """Its own colours: RGB with a tone curve like sRGB's, by its lightness of one half."""
    tones = {ADOBE: 54.5, P3: 53.4, LINEAR: 76.1}
    for icc, lightness in tones.items():
        found = parsed(icc, "x", ExportError)
        assert abs(colors.lightness_of_half(found) - lightness) < 1
        path = saved(tmp_path / "a.png", INSIDE_HWC, icc)
        is_kept = icc != LINEAR
        assert media.own_profile(path) == (icc if is_kept else None)
        assert np.allclose(read(path, "own"), INSIDE_HWC / 255, atol=1e-6) == is_kept
    path = saved(tmp_path / "a.tif", np.zeros((4, 4, 4), np.uint8), press_profile(), "CMYK")
    assert media.own_profile(path) is None
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert media.own_profile(tmp_path / "a.png") is None


def test_what_a_render_starts_from_is_srgb_and_a_mask_is_numbers(tmp_path: Path) -> None:
    path = str(saved(tmp_path / "a.png", INSIDE_HWC, P3))
    for field in ("init", "image", "control"):
        (frame_CHW,) = fitted(look(path, field, num_frames=1), *INSIDE_HWC.shape[:2], 1)
        assert np.allclose(frame_CHW.transpose(1, 2, 0) / 2 + 0.5, read(Path(path)), atol=1e-6)
    look(path, "mask", num_frames=1)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg"])
def test_profiles_that_say_nothing_of_the_colours_are_refused_in_one_line(
    tmp_path: Path, suffix: str
) -> None:
    grey = imagecodecs.cms_profile("gray", whitepoint=(0.3457, 0.3585), gamma=2.2)
    wrong = {
        b"no profile at all": "its profile is no ICC profile",
        P3[:300]: "damaged ICC profile",
        press_profile(): "holds RGB and an ICC profile of CMYK",
        press_profile(device_class=b"link"): "of class device link",
        imagecodecs.cms_profile("lab4"): "of class abstract",
        grey: "holds RGB and an ICC profile of GRAY",
    }
    path = tmp_path / f"a{suffix}"
    for icc, fault in wrong.items():
        saved(path, INSIDE_HWC, icc)
        for field in ("init", "upscale"):
            with pytest.raises(MediaError) as caught:
                look(str(path), field, num_frames=1)
            message = str(caught.value)
            assert fault in message, message
            assert message.startswith(str(path))
            assert "embed one of its own colours, or none" in message
            assert "\n" not in message
        look(str(path), "mask", num_frames=1)


def test_a_profile_of_a_png_that_does_not_unpack_is_refused(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.new("RGB", (4, 4)).save(data, "png", icc_profile=P3)
    whole = data.getvalue()
    at = whole.index(b"iCCP")
    (tmp_path / "a.png").write_bytes(whole[: at + 20] + bytes(9) + whole[at + 29 :])
    with pytest.raises(MediaError, match="its profile is damaged"):
        read(tmp_path / "a.png")
    assert read(tmp_path / "a.png", "numbers").shape == (4, 4, 3)
