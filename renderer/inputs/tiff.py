"""The first whole page of a TIFF as RGB floats: read as its tags say, or refused by their names.

TIFF 6.0, Adobe's TIFF Technical Notes (1995, 2002: Lab), BigTIFF; tifffile decodes strips and
tiles, libtiff turns YCbCr into RGB, Little CMS Lab and what ICC profiles mean.
Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MediaError
from .colors import Colors, Convert, conversion, own_profile
from .faults import check_size
from .rgb_floats import by_rows, finite, integers, on_white, unit, upright
from .tiff_tags import TiffTags, check

# Tags without which the rest means something else; others may be damaged.
DECISIVE = frozenset((*range(254, 260), 262, 266, 273, 274, *range(277, 280), 284, 317, 320))
DECISIVE |= frozenset((*range(322, 326), 332, 334, 336, 338, 339, 347, *range(529, 533), 32997))
REDUCED, MASK = 1, 4  # bits of NewSubfileType
MASK_PHOTOMETRIC = 4
MOST_PAGES = 64  # that are looked through for a whole one
WHITE_IS_ZERO, PALETTE, SEPARATED, YCBCR, CIELAB, ICCLAB = 0, 3, 5, 6, 8, 9
ICC_PROFILE = 34675
JPEG = (6, 7)  # Compression: tifffile has them as RGB


@dataclass(frozen=True)
class Page:
    """A page that can be read: tifffile's own, what its tags say, the mask that goes with it."""

    page: Any
    tags: TiffTags
    mask: Any = None


def size(path: Path) -> tuple[int, int, int]:
    """Rows, columns and orientation, once all tags are such as can be read."""
    with _opened(path) as found:
        return found.tags.height, found.tags.width, found.tags.orientation


def is_deep(path: Path) -> bool:
    """Whether samples have more than 8 bits; a palette's colours have 16."""
    with _opened(path) as found:
        return found.tags.bits > 8 or found.tags.photometric == PALETTE


def read(path: Path, wanted: Colors = "srgb") -> np.ndarray:
    """The page upright, RGB [H, W, 3], float32 in [0, 1], on white, in the colours wanted."""
    with _opened(path) as found:
        tags = found.tags
        convert = conversion(_profile(found), _space(tags), path, wanted)
        if tags.photometric == YCBCR and (tags.compression not in JPEG or tags.planar == 2):
            rgba_HWC = _by_libtiff(path, found.page)
            to_rgb = partial(integers, bits=8, convert=convert)
            return by_rows(rgba_HWC, lambda rows_HWC, _: to_rgb(rows_HWC), tags.orientation)
        samples_HWC = _samples(found.page, tags)
        mask_HW = None if found.mask is None else found.mask.asarray()
        rows = partial(_rows, tags=tags, mask_HW=mask_HW, path=path, convert=convert)
        return by_rows(samples_HWC, rows, tags.orientation)


def own(path: Path) -> bytes | None:
    """The profile of what `read` gives where the page's own colours are wanted; None: sRGB."""
    with _opened(path) as found:
        return own_profile(_profile(found), _space(found.tags), path)


def alpha(path: Path) -> np.ndarray | None:
    """The page's alpha and mask upright, [H, W], float32 in [0, 1]; None where it has neither."""
    with _opened(path) as found:
        tags = found.tags
        alpha_HW = None
        if tags.alpha is not None:
            samples_HWC = _samples(found.page, tags)[..., tags.alpha : tags.alpha + 1]
            alpha_HW = _unit(samples_HWC, 0, tags, path)[..., 0]
        if found.mask is not None:
            mask_HW = found.mask.asarray().astype(np.float32)
            alpha_HW = mask_HW if alpha_HW is None else alpha_HW * mask_HW
        if alpha_HW is None:
            return None
        return np.ascontiguousarray(upright(alpha_HW, tags.orientation))


@contextmanager
def _opened(path: Path) -> Iterator[Page]:
    import tifffile

    with _lost_tags() as lost, tifffile.TiffFile(path) as file:
        page, following = _whole(file)
        if lost:
            raise ValueError(f"tag {lost[0]} is damaged")
        tags = TiffTags.of(page)
        check(path, tags)
        check_size(path, tags.height, tags.width, tags.samples * max(tags.bits, 8) // 8)
        _check_segments(page, path.stat().st_size)
        yield Page(page, tags, _mask(page, following, path))


@contextmanager
def _lost_tags() -> Iterator[list[int]]:
    """Numbers of decisive tags that tifffile cannot read, which it only logs."""
    lost: list[int] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found = re.search(r"TiffTag (\d+) ", record.getMessage())
            if found and int(found[1]) in DECISIVE:
                lost.append(int(found[1]))

    logger, handler = logging.getLogger("tifffile"), Handler(logging.ERROR)
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield lost
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates


def _whole(file: Any) -> tuple[Any, Any]:
    """The first page that is neither a small copy of another nor a mask, and the page after it.

    Pages below another one (SubIFDs) count where that is no whole one itself.
    """
    for index, page in enumerate(islice(file.pages, MOST_PAGES)):
        if not page.subfiletype & (REDUCED | MASK):
            return page, _page(file, index + 1)
        for below in islice(page.pages or (), MOST_PAGES):
            if not below.subfiletype & (REDUCED | MASK):
                return below, None
    return file.pages[0], None


def _page(file: Any, index: int) -> Any:
    try:
        return file.pages[index]
    except IndexError:
        return None


def _mask(page: Any, following: Any, path: Path) -> Any:
    """The page after this one if it is its transparency mask (TIFF 6.0, p. 37); None if not."""
    if following is None:
        return None
    if following.photometric != MASK_PHOTOMETRIC and not following.subfiletype & MASK:
        return None
    size = (page.imagelength, page.imagewidth)
    if (following.imagelength, following.imagewidth) != size or following.dtype != bool:
        raise MediaError(
            f"{path} has a transparency mask of {following.imagewidth}x{following.imagelength} "
            f"pixels, BitsPerSample {following.bitspersample}; one of 1 bit and the picture's own "
            f"size, {size[1]}x{size[0]}, works"
        )
    _check_segments(following, path.stat().st_size)
    return following


def _check_segments(page: Any, file_size: int) -> None:
    """Every strip or tile is in the file: tifffile leaves those that are not black."""
    wanted = int(np.prod(page.chunked))
    places = list(zip(page.dataoffsets, page.databytecounts, strict=False))[:wanted]
    if len(places) < wanted:
        raise ValueError(f"it names {len(places)} of its {wanted} strips or tiles")
    for index, (offset, num_bytes) in enumerate(places):
        if offset <= 0 or num_bytes <= 0 or offset + num_bytes > file_size:
            raise ValueError(f"strip or tile {index} of {wanted} is not in the file")


def _samples(page: Any, tags: TiffTags) -> np.ndarray:
    """Samples as they are stored, [H, W, C]."""
    samples = page.asarray(squeeze=False)  # [planes, depth, H, W, samples of a plane]
    planes_HWC: np.ndarray = np.moveaxis(samples[:, 0], 0, -1)
    return planes_HWC.reshape(tags.height, tags.width, tags.samples)


def _by_libtiff(path: Path, page: Any) -> np.ndarray:
    """A page of YCbCr with subsampled chroma as 8-bit RGBA [H, W, 4]."""
    import imagecodecs

    if page.parent.pages[0] is not page:
        raise MediaError(f"{path} holds YCbCr below its first page; put it first")
    rgba_HWC: np.ndarray = imagecodecs.tiff_decode(path.read_bytes(), asrgb=True)
    if rgba_HWC.shape != (page.imagelength, page.imagewidth, 4):
        raise ValueError(f"libtiff made pixels of {rgba_HWC.shape}")
    # It has mirrored them as their orientation says, and not turned: back to how they are stored.
    orientation = TiffTags.of(page).orientation
    return upright(rgba_HWC, {5: 1, 6: 2, 7: 3, 8: 4}.get(orientation, orientation))


def _profile(found: Page) -> bytes | None:
    """Its ICC profile; Lab says itself what it means."""
    if found.tags.photometric in (CIELAB, ICCLAB):
        return None
    value = found.page.tags.valueof(ICC_PROFILE)
    return value if isinstance(value, bytes) else None


def _space(tags: TiffTags) -> str:
    """What an ICC profile of the page's colours is of."""
    if tags.photometric == SEPARATED:
        return "CMYK"
    return "GRAY" if tags.colours == 1 and tags.photometric != PALETTE else "RGB"


def _rows(
    rows_HWC: np.ndarray,
    first: int,
    *,
    tags: TiffTags,
    mask_HW: np.ndarray | None,
    path: Path,
    convert: Convert | None,
) -> np.ndarray:
    """Stored samples of some rows as RGB [H, W, 3]."""
    alpha_HWC = None
    if tags.alpha is not None:
        alpha_HWC = _unit(rows_HWC[..., tags.alpha : tags.alpha + 1], first, tags, path)
    if mask_HW is not None:
        shown_HWC = mask_HW[first : first + len(rows_HWC), :, None].astype(np.float32)
        alpha_HWC = shown_HWC if alpha_HWC is None else alpha_HWC * shown_HWC
    colour_HWC = _colour(rows_HWC[..., : tags.colours], first, tags, path, convert is not None)
    return on_white(colour_HWC, alpha_HWC, premultiplied=tags.premultiplied, convert=convert)


def _colour(
    samples_HWC: np.ndarray, first: int, tags: TiffTags, path: Path, keeps_inks: bool
) -> np.ndarray:
    """Grey [H, W, 1], RGB [H, W, 3] or inks [H, W, 4] of stored samples."""
    if tags.photometric == PALETTE:
        return _palette(tags)[samples_HWC[..., 0].astype(np.uint16)]
    if tags.photometric in (CIELAB, ICCLAB):
        return _from_lab(samples_HWC, tags)
    unit_HWC = _unit(samples_HWC, first, tags, path)
    if tags.photometric == WHITE_IS_ZERO:
        return 1 - unit_HWC
    if tags.photometric == SEPARATED and not keeps_inks:
        return (1 - unit_HWC[..., :3]) * (1 - unit_HWC[..., 3:])
    return unit_HWC


def _unit(samples_HWC: np.ndarray, first: int, tags: TiffTags, path: Path) -> np.ndarray:
    if tags.is_float:
        return finite(samples_HWC, first, path)
    return unit(samples_HWC, tags.bits)


def _palette(tags: TiffTags) -> np.ndarray:
    """Colours [entries, 3]; where no low byte is used, the writer shifted 8 bits, not scaled."""
    colours_CN = np.asarray(tags.palette)
    if (colours_CN & 255).any():
        return unit(colours_CN.T, 16)
    return unit(colours_CN.T >> 8, 8)


def _from_lab(samples_HWC: np.ndarray, tags: TiffTags) -> np.ndarray:
    """Lab of 8 or 16 bits, white D50, as sRGB [H, W, 3].

    a and b are signed in CIELab, offset by half in ICCLab; there 100 of 16-bit L is 0xFF00.
    """
    import imagecodecs

    step = 2 ** (tags.bits - 8)
    top = 255 * step if tags.photometric == ICCLAB else 2**tags.bits - 1
    lab_HWC = samples_HWC.astype(np.float32)
    lab_HWC[..., 0] *= np.float32(100 / top)
    if tags.photometric == CIELAB:
        lab_HWC[..., 1:] = samples_HWC[..., 1:].astype(f"i{tags.bits // 8}")
    lab_HWC[..., 1:] /= step
    lab_HWC[..., 1:] -= 128 if tags.photometric == ICCLAB else 0
    lab, srgb = imagecodecs.cms_profile("lab4"), imagecodecs.cms_profile("srgb")
    rgb_HWC: np.ndarray = imagecodecs.cms_transform(
        lab_HWC, lab, srgb, colorspace="lab", outcolorspace="rgb", outdtype="float32"
    )
    return np.clip(rgb_HWC, 0, 1)
