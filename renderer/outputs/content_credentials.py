"""Content Credentials (C2PA): a signed account of who made a file, in the file itself.

It says that a trained model made it, with which software, model, prompt and seed, and holds a hash
of all other bytes. It is added last, to a copy, so that no file is ever half signed.
"""

from __future__ import annotations

import json
import mimetypes
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..codecs.tiff_subifds import narrow_subifds
from ..errors import ExportError, printable, reason
from ..files.atomic import check_space
from ..files.location import Location
from ..inputs.sources import Source, is_there
from ..spec.units import BYTES_OF
from ..store import provenance
from ..store.layout import StoreLayout
from ..store.store import Store
from .signer import Signer, library, refusals

# Formats that hold a manifest, by their suffixes.
KINDS = {
    ".png": "image/png",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
}
STORE = ".zarr"
# What of a picture a manifest tells, by the fields of the spec. No paths, nothing of the machine.
TOLD = ("prompt", "negative_prompt", "seed", "num_inference_steps", "method", "scheduler")
OF_GIVEN = ("strength", "creativity")  # of what is made from a picture or clip
PARENT = "parent"  # the ingredient's name in a manifest
CLIP_SHARE = 4  # a clip's file is at most its pixels by this, of any codec here


@dataclass(frozen=True)
class Signing:
    """Who signs what a render delivers, and the picture or clip that it was made from, if any.

    `parent` is what this process was told of: a store, which may be a stranger's, cannot name it.
    """

    signer: Signer
    parent: Source | None = None


def signing(signer: Signer | None, given: Mapping[str, Source]) -> Signing | None:
    """Who signs what is made from pictures that this process was `given`; None: nobody."""
    if signer is None:
        return None
    return Signing(signer, next((given[name] for name in provenance.GIVEN if name in given), None))


def check(files: Sequence[Location], layout: StoreLayout | None = None) -> None:
    """Raise `ExportError` unless each of these files can be signed, and there is one at least.

    With a `layout` also where the disk has no room for a file and its signed copy.
    """
    signed = [path for path in files if path.suffix.lower() != STORE]
    known = ", ".join(KINDS)
    if not signed:
        raise ExportError(f"--sign: a store holds no Content Credentials; add a file of {known}")
    for path in signed:
        if path.suffix.lower() not in KINDS:
            raise ExportError(
                f"{path}: {path.suffix or 'no suffix'} holds no Content Credentials; {known} do"
            )
        if layout is not None and isinstance(path, Path):
            _check_space(path, _most_bytes(path, layout))


def sign(made: Path, out: Path, store: Store, signing: Signing) -> None:
    """Write `made`, a file of a store, to `out` with signed Content Credentials.

    Raises `ExportError`.
    """
    _check_space(out, made.stat().st_size)
    if KINDS[made.suffix.lower()] == "image/tiff":
        narrow_subifds(made)
    for parent in dict.fromkeys((signing.parent, None)):
        try:
            _sign(made, out, store, signing.signer, parent)
        except refusals() as error:
            out.unlink(missing_ok=True)
            if parent is None:  # else the picture that was given may be what cannot be read
                raise ExportError(
                    f"{made.name} cannot be signed: {reason(error, 300)}; the store is whole, and "
                    "frieze export or frieze resume with --sign try again"
                ) from error
        else:
            return


def _sign(made: Path, out: Path, store: Store, signer: Signer, parent: Source | None) -> None:
    kind = KINDS[made.suffix.lower()]
    with ExitStack() as files:
        source = files.enter_context(made.open("rb"))
        target = files.enter_context(out.open("xb+"))
        ingredients = _ingredients(parent, files)
        told = manifest(store, printable(made.name), kind, is_edited=bool(ingredients))
        signer.sign(told, kind, source, target, *ingredients)


def manifest(store: Store, name: str, kind: str, *, is_edited: bool) -> dict[str, Any]:
    """What is signed of a file called so, of a media type, as c2pa's `Builder` takes it.

    `is_edited` says that an ingredient, its parent, comes with it. Of paths there are last names
    only, as in the file's own metadata.
    """
    about = store.provenance
    agent = {"name": "Frieze", "version": provenance.software().partition(" ")[2]}
    act = {
        "action": "c2pa.edited" if is_edited else "c2pa.created",
        "digitalSourceType": provenance.source_type(about),
        "softwareAgent": agent,
        "parameters": _parameters(about, store.layout),
    }
    opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": [PARENT]}}
    actions = [opened, act] if is_edited else [act]
    return {
        "claim_generator_info": [agent],
        "title": name,
        "format": kind,
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": actions}}],
    }


def _parameters(about: Mapping[str, Any], layout: StoreLayout) -> dict[str, Any]:
    picture = about.get("picture") or {}
    is_given = provenance.source_type(about) == provenance.COMPOSITE
    fields = (*TOLD, *(OF_GIVEN if is_given else ()))
    told = {field: picture[field] for field in fields if picture.get(field) not in (None, "")}
    return {
        "model": provenance.model_name(about),
        **told,
        "sampler": about.get("sampler"),
        "guidance": about.get("guidance"),
        "width": layout.width,
        "height": layout.height,
        **({} if layout.frames is None else {"frames": layout.frames, "fps": layout.fps}),
        "fingerprint": about["fingerprint"],
    }


def _ingredients(parent: Source | None, files: ExitStack) -> list[tuple[str, str | None, Any]]:
    """The picture that was given, as C2PA's parent.

    None where it is no longer what was drawn from, or of a kind that the library cannot read.
    """
    if parent is None:
        return []
    path = Path(parent.path)
    kind = KINDS.get(path.suffix.lower()) or mimetypes.guess_type(path.name)[0]
    if kind not in library().Builder.get_supported_mime_types() or not is_there(parent):
        return []
    about = {
        "title": printable(path.name),
        "format": kind,
        "relationship": "parentOf",
        "instance_id": PARENT,
        "label": PARENT,
    }
    return [(json.dumps(about), kind, files.enter_context(path.open("rb")))]


def _most_bytes(path: Path, layout: StoreLayout) -> int:
    """Bytes that a file of such a store has at the most."""
    samples = layout.height * layout.width * (layout.frames or 1) * (layout.channels + 1)
    raw = samples * BYTES_OF[layout.dtype]
    if layout.frames is not None:
        return raw // CLIP_SHARE
    return raw * 4 // 3 if path.suffix.lower() in (".tif", ".tiff") else raw


def _check_space(path: Path, size: int) -> None:
    """Raise `ExportError` unless there is room for a file, its signed copy, and the library's."""
    spare = Path(tempfile.gettempdir(), "frieze-sign")
    is_same = os.stat(spare.parent).st_dev == os.stat(path.parent).st_dev
    check_space(path, (3 if is_same else 2) * size, ExportError)
    if not is_same:
        check_space(spare, size, ExportError)
