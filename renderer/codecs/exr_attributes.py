"""What an OpenEXR file says of itself, and what can be asked of one.

Names are those of OpenEXR's standard optional attributes; `colorInteropID` is the Color Interop
Forum's. `comments` says in words that the light is a display's, made linear.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import Field

from ..color.conversion import Conversion
from ..color.profiles import ADOBE_RGB, DISPLAY_P3, NAMED, SRGB, named
from ..errors import ExportError
from ..files.location import Location
from ..store.provenance import as_json, carried_by, parameters, software, xmp
from ..store.store import Store
from .exr_chunks import INSTALL, Compression
from .frame_rate import rate
from .output import ExportOptions

# Of the Color Interop Forum's light of a scene: of a display's there is none yet.
INTEROP = {SRGB: "lin_rec709_scene", DISPLAY_P3: "lin_p3d65_scene", ADOBE_RGB: "lin_adobergb_scene"}
NOTE = (
    "A picture for a display ({name}), made linear by that space's curve: white is 1, and nothing "
    "is brighter; no light of a scene was measured."
)


class ExrOptions(ExportOptions):
    """Of OpenEXR."""

    pixels: Literal["half", "float"] = Field(
        default="half", description="half keeps 8 bits of a sample, float 16"
    )
    compression: Compression = Field(
        default="piz", description="dwaa and dwab lose a little, the others nothing"
    )

    @property
    def dtype(self) -> str:
        """numpy's name of a sample."""
        return "float16" if self.pixels == "half" else "float32"


def check_library(out: Location) -> None:
    """Raise `ExportError` unless the library is installed."""
    if find_spec("OpenEXR") is None:
        raise ExportError(f"{out} needs OpenEXR: {INSTALL}; or use .tif, .png, .frames or .zarr")


def light_colors(out: Location, colors: Conversion) -> Conversion:
    """From a store's colours to those whose light a file has: sRGB's, unless one with a name.

    Raises `ExportError` where a profile is asked for of which no curve is known.
    """
    if colors.target.name in NAMED:
        return colors
    if colors.is_plain:
        return replace(colors, target=named(SRGB))
    raise ExportError(
        f"{out}: OpenEXR has the light of {', '.join(NAMED)}; for {colors.target.name} use .tif"
    )


def attributes(store: Store, dpi: float, colors: Conversion) -> dict[str, Any]:
    """Header attributes of a store's picture or of each frame of its clip, in such colours."""
    space = NAMED[colors.target.name]
    fps = store.layout.fps
    return {
        "chromaticities": (*space.red, *space.green, *space.blue, *space.white),
        "colorInteropID": INTEROP[colors.target.name],
        "comments": NOTE.format(name=space.name),
        "software": software(),
        "xDensity": float(dpi),
        "frieze": as_json(store.provenance),
        "parameters": parameters(store),
        "xmp": xmp(carried_by(store).xmp, store.provenance),
        **({} if fps is None else {"framesPerSecond": rate(fps)}),
    }
