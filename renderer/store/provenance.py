"""What a delivered file says of itself: who drew it, from what, and that a model did."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from ..color.conversion import INTENTS, Conversion
from ..color.profiles import MOST_BYTES, NAMED, SRGB, Profile, named, parsed, profile
from ..errors import ExportError, shown
from ..files.location import Location, S3Path
from ..inputs.metadata import NOTHING, Metadata
from ..inputs.transparency import Alpha
from ..spec.units import LEAST_DPI, MOST_DPI
from .layout import StoreLayout
from .store import Store

DEFAULT_DPI = 300.0
XMP_TAG = 700
INK_SET_TAG, CMYK_INKS = 332, 1  # TIFF 6.0, section 16
SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
TRAINED_MODEL = f"{SOURCE_TYPES}trainedAlgorithmicMedia"
# What a model made of a picture or clip that is handed in.
COMPOSITE = f"{SOURCE_TYPES}compositeWithTrainedAlgorithmicMedia"
GIVEN = ("init", "upscale", "image")  # such pictures and clips, by the fields that name them

# All but what XML 1.0 has as a character.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Fields that galleries show, by the names that AUTOMATIC1111's web UI gave them.
_SHOWN = (
    ("num_inference_steps", "Steps"),
    ("guidance_scale", "CFG scale"),
    ("seed", "Seed"),
    ("model", "Model"),
)


def source(
    from_store: Store | str | os.PathLike[str] | S3Path, out_path: str | os.PathLike[str]
) -> Store:
    """The store to export from; raises `ExportError` if the file would land in it."""
    store = from_store if isinstance(from_store, Store) else Store.open(from_store)
    out = Path(os.path.realpath(out_path))
    if store.path in (out, *out.parents):
        raise ExportError(f"{out_path} lies in the store itself; use another name")
    return store


def check_picture(out: Location, layout: StoreLayout) -> None:
    """Raise `ExportError` where a clip is to go into a picture's format."""
    if layout.frames is not None:
        raise ExportError(
            f"{out} would hold one picture, and the store holds a clip of {layout.frames} frames; "
            "use .mp4, .mov, .mkv, .frames (numbered TIFFs), .exrs (numbered EXRs) or .zarr"
        )


def check_clip(out: Location, layout: StoreLayout) -> None:
    """Raise `ExportError` where a picture is to go into a clip's format."""
    if layout.frames is None:
        raise ExportError(
            f"{out} would hold a clip, and the store holds a picture; use .tif, .png or .zarr, "
            "or draw more frames"
        )


def dpi_of(store: Store, asked: float | None) -> float:
    """Dots per inch: as asked, else as the run's spec says, else 300.

    So they are where an old store has what no file should say. Raises `ExportError` of `asked`.
    """
    if asked is not None and not _is_dpi(asked):
        raise ExportError(
            f"dpi {shown(asked)} does not work; from {LEAST_DPI:g} to {MOST_DPI:g} does"
        )
    told: Any = (store.run.get("spec") or {}).get("dpi") if asked is None else asked
    return float(told) if _is_dpi(told) else DEFAULT_DPI


def _is_dpi(dpi: Any) -> bool:
    is_number = isinstance(dpi, int | float) and not isinstance(dpi, bool)
    return is_number and LEAST_DPI <= dpi <= MOST_DPI


def software() -> str:
    """Name and version of the program."""
    return f"frieze {metadata.version('frieze')}"


def alpha_of(store: Store) -> Alpha | None:
    """What was transparent in the picture that was made larger, if anything was."""
    names = [array.name for array in store.layout.latents]
    if "alpha" not in names:
        return None
    index = names.index("alpha")
    height = store.layout.latents[index].shape[-2]
    return Alpha(height, lambda rows: store.load_latents(index, 0, rows)[0, 0])


def carried_by(store: Store) -> Metadata:
    """What the picture that was made larger said of itself; nothing where none was."""
    return Metadata.from_json(store.run.get("carried"))


def color_of(
    store: Store, out: Location, asked: str | None = None, intent: str | None = None
) -> Conversion:
    """From the store's colours to those of a file: as asked, else as the run's spec says.

    Else they stay as they are: sRGB, or what a picture that was made larger came in. A profile
    that the run was begun with is the store's own, whatever its file holds by now. Raises
    `ExportError`.
    """
    told: Any = store.run.get("spec")
    spec: Mapping[str, Any] = told if isinstance(told, Mapping) else {}
    recorded, wanted = (
        spec.get("color"),
        spec.get("intent", "relative") if intent is None else intent,
    )
    if wanted not in INTENTS:
        raise ExportError(f"intent {shown(wanted)} does not work; {', '.join(INTENTS)} do")
    source = own_colors(carried_by(store))
    name = recorded if asked is None else asked
    if name is None:
        target = source
    elif name == recorded and name not in NAMED:
        target = _recorded_profile(store, str(name))
    else:
        target = profile(name, ExportError)
    conversion = Conversion(source, target, wanted)
    conversion.check(out, has_alpha=alpha_of(store) is not None)
    return conversion


def own_colors(carried: Metadata) -> Profile:
    """What the pixels of a store mean: the profile that came with its picture, else sRGB."""
    with suppress(ExportError):
        if carried.icc is not None:
            found = parsed(carried.icc, "the picture's profile", ExportError)
            return found if found.space == "RGB" else named(SRGB)
    return named(SRGB)


def recorded_profile(found: Profile) -> str | None:
    """A file's profile as text in a run's record, None of what has a name."""
    if found.name in NAMED:
        return None
    return base64.b64encode(zlib.compress(found.data)).decode("ascii")


def _recorded_profile(store: Store, name: str) -> Profile:
    try:
        packed = base64.b64decode(store.run["profile"], validate=True)
        data = zlib.decompressobj().decompress(packed, MOST_BYTES)
    except (KeyError, TypeError, ValueError, binascii.Error, zlib.error):
        raise ExportError(
            f"the store names the profile {shown(name)} and does not hold it; give one with --color"
        ) from None
    return parsed(data, name, ExportError)


def tiff_tags(
    dpi: float,
    description: Mapping[str, Any] | None,
    carried: Metadata = NOTHING,
    color: Conversion | None = None,
) -> dict[str, Any]:
    """Tags of a TIFF's first page, as tifffile takes them.

    Deterministic, so that the same picture makes the same file.
    """
    packet = xmp(carried.xmp, description).encode()
    colors = own_colors(carried) if color is None else color.target
    inks = [(INK_SET_TAG, "H", 1, CMYK_INKS, True)] if colors.space == "CMYK" else []
    return {
        "photometric": "separated" if colors.space == "CMYK" else "rgb",
        "metadata": None,
        "resolution": (dpi, dpi),
        "resolutionunit": "INCH",
        "software": software(),
        "description": as_json(description or {}),
        "extratags": [(XMP_TAG, "B", len(packet), packet, True), *inks],
        "iccprofile": colors.data,
    }


def as_json(about: Mapping[str, Any]) -> str:
    """Generation parameters as one line of ASCII."""
    return json.dumps(dict(about), ensure_ascii=True, separators=(", ", ": "))


def parameters(store: Store) -> str:
    """Generation parameters in the text form that image galleries read."""
    about = store.provenance
    picture, guidance = about.get("picture", {}), about.get("guidance", {})
    shown = {name: picture[field] for field, name in _SHOWN if picture.get(field) is not None}
    if "cfg" in guidance:
        shown.pop("CFG scale", None)
    layout = store.layout
    clip = {} if layout.frames is None else {"Frames": layout.frames, "FPS": layout.fps}
    facts = {
        "Steps": shown.pop("Steps", "?"),
        # A store of an earlier version does not say.
        **({"Sampler": about["sampler"]} if "sampler" in about else {}),
        **({"CFG scale": f"{guidance['cfg']:g}"} if "cfg" in guidance else {}),
        **(
            {"Distilled CFG Scale": f"{guidance['embedded']:g}"} if guidance.get("embedded") else {}
        ),
        **{name: value for name, value in shown.items() if name != "Model"},
        "Size": f"{layout.width}x{layout.height}",
        **clip,
        **{name: value for name, value in shown.items() if name == "Model"},
        "Fingerprint": about["fingerprint"],
        "Version": software(),
    }
    lines = [str(picture.get("prompt", ""))]
    if picture.get("negative_prompt"):
        lines.append(f"Negative prompt: {picture['negative_prompt']}")
    lines.append(", ".join(f"{name}: {value}" for name, value in facts.items()))
    return "\n".join(lines)


def source_type(about: Mapping[str, Any] | None) -> str:
    """IPTC's digital source type of what a `Store.provenance` tells about."""
    given = (about or {}).get("starts_from") or {}
    return COMPOSITE if any(name in given for name in GIVEN) else TRAINED_MODEL


def model_name(about: Mapping[str, Any]) -> str:
    """The model by its name or hub id; of a folder the last name."""
    return str((about.get("picture") or {}).get("model") or "")


def xmp(carried: bytes | None = None, about: Mapping[str, Any] | None = None) -> str:
    """An XMP packet of what a model made: IPTC's digital source type, and the model and the prompt.

    `about` is a store's `provenance`. It is added to the packet that is `carried` from the picture
    that was made larger. The properties of IPTC's Photo Metadata Standard 2025.1 begin with AI.
    """
    whole = carried.decode("utf-8", "replace") if carried else ""
    added = _description(about)
    if whole.count("</rdf:RDF>") == 1:
        return whole.replace("</rdf:RDF>", f"{added}</rdf:RDF>")
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f"{added}"
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    )


def _description(about: Mapping[str, Any] | None) -> str:
    told = "".join(f" Iptc4xmpExt:{n}={_quoted(v)}" for n, v in _iptc(about or {}).items())
    return (
        '<rdf:Description rdf:about=""'
        ' xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
        ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        f" xmp:CreatorTool={_quoted(software())}"
        f' Iptc4xmpExt:DigitalSourceType="{source_type(about)}"{told}/>'
    )


def _iptc(about: Mapping[str, Any]) -> dict[str, str]:
    """Properties of IPTC's standard that say which model drew, and what it was told."""
    picture = about.get("picture") or {}
    prompts = [str(picture.get("prompt") or "")]
    if picture.get("negative_prompt"):
        prompts.append(f"Negative prompt: {picture['negative_prompt']}")
    found = {
        "AISystemUsed": model_name(about),
        "AISystemVersionUsed": str(about.get("weights") or ""),
        "AIPromptInformation": "\n".join(filter(None, prompts)),
    }
    return {name: value for name, value in found.items() if value}


def _quoted(text: str) -> str:
    """A value of an attribute; what XML has no letters for is left out."""
    return quoteattr(_NO_XML.sub("", text), {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})
