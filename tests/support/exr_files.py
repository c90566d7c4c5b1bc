"""OpenEXR files read back, and the light of sRGB's values.

Shape suffixes: C channels, H rows, W columns.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR

from tolerances import AMPLE

# In a process of its own: at the end of one that pytest runs in, its binding reports what leaks.
OPEN_IMAGE_IO = """
import json, sys
import numpy, OpenImageIO
image = OpenImageIO.ImageInput.open(sys.argv[1])
assert image is not None, OpenImageIO.geterror()
spec = image.spec()
numpy.save(sys.argv[2], image.read_image(OpenImageIO.FLOAT))
about = {each.name: each.value for each in spec.extra_attribs}
about |= {"format": str(spec.format), "channels": list(spec.channelnames)}
print(json.dumps(about, default=list))
"""


def read_exr(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Pixels [H, W, C], and what the file says of itself, by OpenEXR's own library."""
    file = OpenEXR.File(str(path))
    (channels,) = file.channels().values()
    return channels.pixels, file.header()


def read_by_another(path: Path, scratch: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """The same as float32 by OpenImageIO."""
    command = [sys.executable, "-c", OPEN_IMAGE_IO, str(path), str(scratch)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=AMPLE, check=True)
    return np.load(scratch), json.loads(shown.stdout)


def srgb_light(pixels: np.ndarray) -> np.ndarray:
    """Light of integers by IEC 61966-2-1, float64."""
    coded = pixels / np.iinfo(pixels.dtype).max
    return np.where(coded > 0.04045, ((coded + 0.055) / 1.055) ** 2.4, coded / 12.92)


def srgb_values(light: np.ndarray) -> np.ndarray:
    """The values of 8 bits that show such light, rounded."""
    light = light.astype(np.float64)
    coded = np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, light * 12.92)
    return np.rint(coded * 255).astype(np.uint8)
