"""PDF for print: one page at physical size with its bleed, marks and colour profile, streamed.

The whole picture is one image, deflated losslessly in 8 or 16 bits; with jpeg compression strips of
512 rows, each of which goes on under the next, so that no seam shows where they meet. The page's
TrimBox is the print's size where one was asked for, else the picture without its bleed.

Of PDF/X-4 (ISO 15930-7) a CMYK page has what a print shop looks at: boxes, an output intent with
the printer's profile, a trapping key, one colour space, no transparency. It does not call itself
PDF/X: that asks for dates, and the same picture makes the same file. Pages in RGB have a profile
and no output intent. Some readers take a page larger than 200 inches, whose UserUnit is above 1,
for one of 200. A picture with alpha lies on white.
Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import escape

import numpy as np
from pydantic import Field, StrictBool

from ..codecs.output import ExportOptions, Output
from ..codecs.page_images import STRIP_ROWS, PageImages
from ..codecs.pdf_file import PdfFile, reference, string
from ..codecs.print_page import POINTS, POINTS_PER_MM, PrintPage
from ..codecs.tile_encoder import QUALITY
from ..errors import ExportError, printable, shown
from ..files.location import Location
from ..spec.place import length_mm, print_mm
from ..spec.units import BYTES_OF
from ..store.layout import StoreLayout
from ..store.provenance import as_json, check_picture, dpi_of, software, xmp

suffixes = (".pdf",)
color_spaces = ("RGB", "CMYK")

MOST_JPEG = 65500  # pixels a side
MOST_TITLE = 500
ROUNDING = 0.01  # points


class Options(ExportOptions):
    """Of PDF."""

    bleed: str | None = Field(
        default=None,
        description="the picture's edge that is cut off, as 3mm; default: as it was drawn with",
    )
    marks: StrictBool = Field(default=False, description="marks where the page is cut")
    title: str | None = Field(
        default=None, description="the document's title; default: the file's name"
    )
    compression: Literal["deflate", "jpeg"] = Field(
        default="deflate", description="deflate loses nothing, jpeg is small"
    )
    quality: int = Field(default=QUALITY, ge=1, le=100, description="JPEG's, of 100")
    level: int = Field(default=6, ge=1, le=9, description="deflate's: 1 fast, 9 small")
    workers: int | None = Field(
        default=None, ge=1, le=1024, description="compressing threads; default: all cores"
    )


DEFAULTS = Options()


def check(out: Location, layout: StoreLayout) -> None:
    """Raise `ExportError` unless such a store can be written there: it must be a picture."""
    check_picture(out, layout)


def export(output: Output, options: Options = DEFAULTS) -> Path:
    """Write a store as a PDF of one page; returns the file's path.

    Raises `ExportError` or `StoreError`, and leaves nothing then.
    """
    out, layout, colors = output.path, output.layout, output.colors
    check(out, layout)
    page = _page(output, options)
    title = _checked_title(printable(out.stem) if options.title is None else options.title)
    if options.compression == "jpeg" and layout.width > MOST_JPEG:
        raise ExportError(f"{out}: JPEG ends at {MOST_JPEG} pixels a side; use deflate")
    images = PageImages(
        layout.height,
        layout.width,
        colors.channels,
        8 * BYTES_OF[layout.dtype],
        options.compression,
        options.quality,
        options.level,
        options.workers or os.cpu_count() or 1,
    )
    with output.file() as part, part.open("wb") as file:
        strips = (rows for _, rows in output.flat_strips(STRIP_ROWS, options.workers))
        _write(PdfFile(file), output, page, title, images, strips)
    return out


def _page(output: Output, options: Options) -> PrintPage:
    """The page of a store: its print's, where it was drawn for one and is not told another dpi."""
    told, layout = output.store.run.get("spec"), output.layout
    spec: Mapping[str, Any] = told if isinstance(told, Mapping) else {}
    width, height = (side / output.dpi * POINTS for side in (layout.width, layout.height))
    try:
        asked = spec.get("bleed") if options.bleed is None else options.bleed
        edge = 0.0 if asked is None else length_mm(asked) * POINTS_PER_MM
        size = None if spec.get("print") is None else print_mm(spec["print"])
    except (TypeError, ValueError) as error:
        raise ExportError(f"bleed or print: {error}") from None
    if size is not None and output.dpi == dpi_of(output.store, None):
        trim = (size[0] * POINTS_PER_MM, size[1] * POINTS_PER_MM)
    else:
        trim = (width - 2 * edge, height - 2 * edge)
    page = PrintPage(width, height, trim, edge, options.marks)
    _check_page(page, asked, size)
    return page


def _check_page(page: PrintPage, bleed: str | None, size: tuple[float, float] | None) -> None:
    """Raise `ExportError` unless the picture covers the page and its bleed."""
    has = " x ".join(f"{side / POINTS_PER_MM:.4g}" for side in (page.width, page.height))
    if min(page.trim) <= 0:
        raise ExportError(f"bleed {bleed} leaves nothing of a picture of {has} mm; give less")
    lacks = max(page.trim[0] - page.width, page.trim[1] - page.height) + 2 * page.bleed
    if size is not None and lacks > ROUNDING:
        raise ExportError(
            f"bleed {bleed or 0}: the picture is {has} mm and the print {size[0]:g} x {size[1]:g} "
            "mm; draw it with --bleed, or give another --dpi"
        )


def _checked_title(title: str) -> str:
    if not title.isprintable() or len(title) > MOST_TITLE:
        raise ExportError(
            f"title {shown(title)} does not work; at most {MOST_TITLE} letters that print do"
        )
    return title


def _write(
    pdf: PdfFile,
    output: Output,
    page: PrintPage,
    title: str,
    images: PageImages,
    strips: Iterator[np.ndarray],
) -> None:
    """All objects of the document, the pixels before what names them."""
    colors = output.colors
    alternate = "/DeviceCMYK" if colors.space == "CMYK" else "/DeviceRGB"
    profile = pdf.add_stream(
        {"N": str(colors.channels), "Alternate": alternate, "Filter": "/FlateDecode"},
        [zlib.compress(colors.icc)],
    )
    space = reference(pdf.add(f"[/ICCBased {reference(profile)}]"))
    placed = images.write(pdf, strips, space)
    drawn = [
        page.image(f"Im{index}", each.top / images.height, each.rows / images.height)
        for index, each in enumerate(placed)
    ]
    lines = ["q", page.clip(), *drawn, "Q"]
    inks = reference(pdf.add(_plates(space))) if colors.space == "CMYK" else space
    if page.has_marks:
        lines += ["q /CS0 CS", _BLACK[colors.space], page.marks(), "Q"]
    contents = pdf.add_stream({}, ["\n".join(lines).encode()])
    names = " ".join(f"/Im{index} {reference(each.number)}" for index, each in enumerate(placed))
    resources = f"<< /XObject << {names} >> /ColorSpace << /CS0 {inks} >> >>"
    pages = pdf.reserve()
    leaf = pdf.add(
        {
            "Type": "/Page",
            "Parent": reference(pages),
            **page.boxes(),
            "Resources": resources,
            "Contents": reference(contents),
        }
    )
    pdf.add({"Type": "/Pages", "Kids": f"[{reference(leaf)}]", "Count": "1"}, pages)
    _write_catalog(pdf, output, title, pages, profile)


# Of marks: all inks of a press, or black.
_BLACK = {"CMYK": "1 SCN", "RGB": "0 0 0 SCN"}


def _plates(space: str) -> str:
    """The colour of marks that print on every plate (section 8.6.6.4)."""
    tint = "<< /FunctionType 2 /Domain [0 1] /C0 [0 0 0 0] /C1 [1 1 1 1] /N 1 >>"
    return f"[/Separation /All {space} {tint}]"


def _write_catalog(pdf: PdfFile, output: Output, title: str, pages: int, profile: int) -> None:
    """What the document says of itself, and the end of the file."""
    store, colors = output.store, output.colors
    packet = _packet(xmp(output.carried.xmp, store.provenance), title).encode()
    metadata = pdf.add_stream({"Type": "/Metadata", "Subtype": "/XML"}, [packet])
    root = {"Type": "/Catalog", "Pages": reference(pages), "Metadata": reference(metadata)}
    if colors.space == "CMYK":
        name = Path(colors.target.name).stem
        condition = {
            "Type": "/OutputIntent",
            "S": "/GTS_PDFX",
            "OutputConditionIdentifier": string(name),
            "Info": string(name),
            "DestOutputProfile": reference(profile),
        }
        root["OutputIntents"] = f"[{reference(pdf.add(condition))}]"
    info = {
        "Title": string(title),
        "Creator": string(software()),
        "Producer": string(software()),
        "Trapped": "/False",
        "frieze": string(as_json(store.provenance)),
    }
    pdf.end(pdf.add(root), pdf.add(info))


def _packet(packet: str, title: str) -> str:
    """XMP with the title, where the picture had none of its own."""
    if "dc:title" in packet:
        return packet
    about = (
        '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>'
        f'<rdf:Alt><rdf:li xml:lang="x-default">{escape(title)}</rdf:li></rdf:Alt></dc:title>'
        "</rdf:Description></rdf:RDF>"
    )
    return packet.replace("</rdf:RDF>", about)
