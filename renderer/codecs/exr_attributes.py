"""What an OpenEXR file says of itself, and what can be asked of one.

Names are those of OpenEXR's standard optional attributes; `colorInteropID` is the Color Interop
Forum's. `comments` says in words that the light is a display's, made linear.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..errors import ExportError
from ..files.location import Location
from ..store.provenance import as_json, carried_by, parameters, software, xmp
from ..store.store import Store
from .exr_chunks import INSTALL, Compression
from .frame_rate import rate

# BT.709's, which are sRGB's: x and y of red, green, blue and white.
CHROMATICITIES = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329)
COLOR_SPACE = "lin_rec709_scene"
NOTE = (
    "A picture for a display (sRGB, IEC 61966-2-1), made linear by sRGB's curve: white is 1, and "
    "nothing is brighter; no light of a scene was measured."
)


class ExrOptions(BaseModel):
    """Of OpenEXR."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

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


def attributes(store: Store, dpi: float) -> dict[str, Any]:
    """Header attributes of a store's picture or of each frame of its clip."""
    fps = store.layout.fps
    return {
        "chromaticities": CHROMATICITIES,
        "colorInteropID": COLOR_SPACE,
        "comments": NOTE,
        "software": software(),
        "xDensity": float(dpi),
        "frieze": as_json(store.provenance),
        "parameters": parameters(store),
        "xmp": xmp(carried_by(store).xmp),
        **({} if fps is None else {"framesPerSecond": rate(fps)}),
    }
