"""Tags of a TIFF page that decide its colours, and those that are not read, refused by name.

TIFF 6.0 and its supplements; numbers of tags as there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from ..errors import MediaError

# Samples of a colour by PhotometricInterpretation.
COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3, 9: 3}
PHOTOMETRIC = {
    0: "WhiteIsZero",
    1: "BlackIsZero",
    2: "RGB",
    3: "palette",
    4: "transparency mask",
    5: "separated",
    6: "YCbCr",
    8: "CIELab",
    9: "ICCLab",
    10: "ITULab",
    32803: "CFA",
    32844: "LogL",
    32845: "LogLuv",
    34892: "LinearRaw",
    51177: "depth",
}
SAMPLE_FORMAT = {
    1: "whole numbers",
    2: "signed",
    3: "floats",
    4: "void",
    5: "complex",
    6: "complex",
}
WHOLE, FLOAT, VOID = 1, 3, 4
FAX = (2, 3, 4, 32771)
ASSOCIATED, UNASSOCIATED, COREL = 1, 2, 999
PALETTE, SEPARATED, YCBCR, CIELAB, ICCLAB = 3, 5, 6, 8, 9
CMYK = 1  # InkSet


@dataclass(frozen=True)
class TiffTags:
    """What a page's tags say, defaults filled in."""

    height: int
    width: int
    depth: int
    orientation: int
    photometric: int | None
    planar: int
    compression: int
    predictor: int
    samples: int
    bits: int  # of each sample; 0: they differ
    bits_told: str
    sample_format: int
    extra: tuple[int, ...] | None
    palette: Any
    ink_set: int
    dot_range: tuple[int, ...] | None
    is_indexed: bool

    @classmethod
    def of(cls, page: Any) -> TiffTags:
        """The tags of one of tifffile's pages."""

        def number(code: int, default: int) -> int:
            value = page.tags.valueof(code)
            return default if value is None else int(value)

        def numbers(code: int) -> tuple[int, ...] | None:
            value = page.tags.valueof(code)
            return None if value is None else tuple(int(each) for each in np.atleast_1d(value))

        bits = page.bitspersample
        formats = numbers(339) or (WHOLE,)
        palette = page.tags.valueof(320)
        compression = int(page.compression)
        samples = int(page.samplesperpixel)
        extra = numbers(338)
        if extra is None and number(32995, 0) == 1:  # Matteing, an older word for it
            extra = (ASSOCIATED,)
        return cls(
            height=int(page.imagelength),
            width=int(page.imagewidth),
            depth=int(page.imagedepth),
            orientation=number(274, 1),
            photometric=_photometric(page, number(262, -1), samples, compression),
            planar=number(284, 1),
            compression=compression,
            predictor=number(317, 1),
            samples=samples,
            bits=int(bits) if isinstance(bits, int) else 0,
            bits_told=str(bits).strip("()"),
            sample_format=formats[0] if len(set(formats[:samples])) == 1 else 0,
            extra=extra,
            palette=None if palette is None else np.reshape(palette, (3, -1)),
            ink_set=number(332, CMYK),
            dot_range=numbers(336),
            is_indexed=number(346, 0) == 1,
        )

    @property
    def is_float(self) -> bool:
        return self.sample_format == FLOAT

    @property
    def colours(self) -> int:
        """Samples of a pixel that are its colour; the others are extra."""
        return COLOURS[self.photometric or 0]

    @property
    def alpha(self) -> int | None:
        """Which sample is alpha. Without a tag one more sample is, as readers have it."""
        if self.extra is None:
            return self.colours if self.samples == self.colours + 1 else None
        kinds = (index for index, kind in enumerate(self.extra) if kind)
        first = next(kinds, None)
        return None if first is None else self.colours + first

    @property
    def premultiplied(self) -> bool:
        return self.extra is not None and self.alpha is not None and self._kind() == ASSOCIATED

    def _kind(self) -> int:
        return next(kind for kind in self.extra or () if kind)


def _photometric(page: Any, told: int, samples: int, compression: int) -> int | None:
    """PhotometricInterpretation; where it lacks, what libtiff takes it for."""
    if told >= 0:
        return int(page.photometric) if compression == 6 else told
    if samples == 1:
        return 0 if compression in FAX else 1
    return {2: 1, 3: 2, 4: 2}.get(samples)


def check(path: str | os.PathLike[str], tags: TiffTags) -> None:
    """Raises `MediaError` for what is not read, naming the tag and its value."""

    def refuse(tag: str, value: object, works: str) -> NoReturn:
        raise MediaError(f"{path} has {tag} {value}, which is not read; {works}")

    _check_layout(tags, refuse)
    _check_depth(tags, refuse)
    _check_colours(tags, refuse)
    _check_extra(tags, refuse)


def _check_layout(tags: TiffTags, refuse: Any) -> None:
    import tifffile

    if tags.photometric not in COLOURS:
        name = PHOTOMETRIC.get(tags.photometric or -1, "unknown")
        told = "none" if tags.photometric is None else f"{tags.photometric} ({name})"
        refuse("PhotometricInterpretation", told, "grey, RGB, palette, CMYK, YCbCr and Lab work")
    if tags.depth != 1:
        refuse("ImageDepth", tags.depth, "1 works")
    if tags.planar not in (1, 2):
        refuse("PlanarConfiguration", tags.planar, "1 (chunky) and 2 (planar) work")
    if tags.compression != 1 and tags.compression not in tifffile.TIFF.DECOMPRESSORS:
        refuse("Compression", tags.compression, "none, LZW, Deflate, JPEG, ZSTD and fax work")
    odd = tags.bits not in (8, 16, 32, 64)
    if tags.predictor not in (1, 2, 3, *range(34892, 34896)) or (tags.predictor != 1 and odd):
        told = f"{tags.predictor} with BitsPerSample {tags.bits_told}"
        refuse("Predictor", told, "1, or 2 and 3 at 8, 16, 32 or 64 bits, work")


def _check_depth(tags: TiffTags, refuse: Any) -> None:
    if tags.sample_format not in (WHOLE, FLOAT, VOID):
        name = SAMPLE_FORMAT.get(tags.sample_format, "unknown, or not all alike")
        works = "1 (unsigned whole numbers) and 3 (floats) work"
        refuse("SampleFormat", f"{tags.sample_format} ({name})", works)
    if tags.is_float and tags.bits not in (16, 24, 32, 64):
        refuse("BitsPerSample", f"{tags.bits_told} of floats", "16, 24, 32 and 64 work")
    # Libraries do not agree on the order of the bytes in 24 bits.
    if not tags.is_float and tags.bits not in (*range(1, 24), *range(25, 33), 64):
        works = "1 to 32 but 24, and 64, alike in all samples, work"
        refuse("BitsPerSample", tags.bits_told, works)
    if tags.photometric in (PALETTE, YCBCR, CIELAB, ICCLAB):
        allowed = {PALETTE: range(1, 17), YCBCR: (8,)}.get(tags.photometric, (8, 16))
        if tags.is_float or tags.bits not in allowed:
            name = PHOTOMETRIC[tags.photometric]
            told = f"{tags.bits_told} of {'floats' if tags.is_float else name}"
            refuse("BitsPerSample", told, f"{allowed[0]} to {allowed[-1]} work for {name}")


def _check_colours(tags: TiffTags, refuse: Any) -> None:
    if tags.is_indexed and tags.photometric != PALETTE:
        refuse("Indexed", 1, "palettes of PhotometricInterpretation 3 work")
    if tags.photometric == PALETTE and np.shape(tags.palette) != (3, 2**tags.bits):
        told = np.size(tags.palette) if tags.palette is not None else 0
        refuse("ColorMap", f"of {told} values", f"3 x {2**tags.bits} values work")
    if tags.photometric == SEPARATED:
        if tags.ink_set != CMYK:
            refuse("InkSet", tags.ink_set, "1 (CMYK) works")
        whole = (0, 2**tags.bits - 1)
        if tags.dot_range not in (None, whole, whole * tags.samples):
            refuse("DotRange", tags.dot_range, f"{whole} works")


def _check_extra(tags: TiffTags, refuse: Any) -> None:
    extra = tags.samples - tags.colours
    if extra < 0:
        name = PHOTOMETRIC[tags.photometric or 0]
        refuse("SamplesPerPixel", f"{tags.samples} of {name}", f"{tags.colours} or more work")
    if tags.extra is None:
        if extra > 1:
            works = "tell what they are with ExtraSamples"
            refuse("SamplesPerPixel", f"{tags.samples}, {extra} of them extra", works)
        return
    if len(tags.extra) != extra or not set(tags.extra) <= {0, ASSOCIATED, UNASSOCIATED, COREL}:
        works = f"{extra} of 0 (unspecified), 1 (premultiplied alpha) and 2 (alpha) work"
        refuse("ExtraSamples", tags.extra or "none", works)
    if tags.premultiplied and tags.photometric not in (1, 2):
        name = PHOTOMETRIC[tags.photometric or 0]
        works = "premultiplied grey (BlackIsZero) and RGB work, or ExtraSamples 2"
        refuse("ExtraSamples", f"1 with {name}", works)
    if tags.photometric == YCBCR and extra:
        refuse("ExtraSamples", f"{tags.extra} with YCbCr", "RGB has alpha")
