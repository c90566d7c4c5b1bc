"""What a store remembers of its run: what of it is published, and how two runs differ."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import StoreError, reason
from ..journal import checksums

# Fields of a run that say where it happened, with paths and addresses: never published.
UNPUBLISHED = frozenset({"spec", "outputs", "sources", "carried", "profile"})
# What damaged metadata or data raise, from JSON, numpy and zarr.
DAMAGE = (OSError, ValueError, KeyError, TypeError, RuntimeError, OverflowError)


def is_store(path: Path) -> bool:
    """Whether a folder is a store of ours, whole or left half made."""
    return (path / "frieze").is_dir() and are_ours(entry.name for entry in path.iterdir())


def are_ours(names: Iterable[str]) -> bool:
    """Whether these are the names at the top of a store."""
    found = set(names)
    return "frieze" in found and all(
        name in ("frieze", "zarr.json") or name.isdigit() for name in found
    )


def damaged(where: object, error: BaseException) -> StoreError:
    """The error to raise for whatever damaged files made a library raise."""
    if isinstance(error, StoreError):
        return error
    return StoreError(
        f"{where} is damaged ({reason(error, 200)}); restore it from a copy or draw it again"
    )


def published(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run without what no reader of the picture should learn."""
    shown = _writable({name: value for name, value in run.items() if name not in UNPUBLISHED})
    picture = shown.get("picture")
    if isinstance(picture, Mapping):
        shown["picture"] = {name: _placeless(name, value) for name, value in picture.items()}
    return shown


def _writable(value: Any) -> Any:
    """JSON values whose texts every file can hold: a half of a letter of UTF-16 is escaped."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_writable(name): _writable(part) for name, part in value.items()}
    return [*map(_writable, value)] if isinstance(value, (list, tuple)) else value


def _placeless(name: str, value: Any) -> Any:
    """A field of a picture without the folders of this machine: a file's name is enough."""
    if name in ("init", "upscale", "image", "mask", "controlnet", "control") and value is not None:
        several = isinstance(value, list)
        return [_placeless(name, each) for each in value] if several else Path(str(value)).name
    if name in ("lora", "lora_2") and value:
        return [_placeless("model", file) for file in value]
    if name == "stages" and value:
        return [{n: _placeless(n, each) for n, each in stage.items()} for stage in value]
    if name in ("model", "lora") and str(value).startswith(("/", "~", ".")):
        return Path(str(value)).name
    return value


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """For every field of `new` that differs, as in: seed: 7 in the store, 8 asked for.

    And for those of a field's own that `new` has not, since defaults of later fields are left out.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = [*new, *(old.keys() - new.keys() if name else ())]
        parts = [
            differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
            for key in sorted(names, key=str)
        ]
        return [line for part in parts for line in part]
    if json.dumps(old) == json.dumps(new):
        return []
    return [f"{name}: {_short(old)} in the store, {_short(new)} asked for"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


FORMAT = "frieze store 1"
MOST_BYTES = 64 * 2**20
Side = Annotated[int, Field(ge=1, le=2**31)]
Count = Annotated[int, Field(ge=0, le=2**31)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Record(BaseModel):
    """JSON values of these types; more of them are left as they are."""

    model_config = ConfigDict(strict=True, extra="allow")


class LatentRecord(BaseModel):
    """One array of latents; its name is a folder's."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[0-9a-z]{1,40}(-[a-z]{1,40})?$")]
    shape: Annotated[list[Side], Field(min_length=5, max_length=5)]
    chunk_rows: Side
    chunk_frames: Side | None = None


class LayoutRecord(BaseModel):
    """Sizes of everything in a store, as `StoreLayout.as_json` gives them."""

    model_config = ConfigDict(strict=True, extra="forbid")

    height: Side
    width: Side
    block: Annotated[list[Side], Field(min_length=2, max_length=2)]
    dtype: Literal["uint8", "uint16"] = "uint8"
    channels: Side = 3
    chunk: Side = 512
    latents: Annotated[list[LatentRecord], Field(max_length=1000)]
    num_levels: Annotated[int, Field(ge=0, le=32)] = 0
    frames: Side | None = None
    fps: Annotated[float, Field(gt=0, le=2**31)] | None = None


class StageRecord(Record):
    """One stage: its latents' size and its noise levels, one more than its steps."""

    height: Side
    width: Side
    levels: Annotated[list[list[Number]], Field(min_length=1)]


class SourceRecord(BaseModel):
    """A picture or clip that the render starts from."""

    model_config = ConfigDict(strict=True, extra="forbid")

    path: str
    digest: str
    num_frames: Count
    height: Side
    width: Side


class OutputsRecord(Record):
    """Where the results were to go."""

    main: str
    live: str | None
    exports: list[str]
    overwrite: bool


class AskedStage(Record):
    """What was asked for of a stage."""

    lora: list[str] | None = None
    lora_2: list[str] | None = None


class AskedRecord(AskedStage):
    """What was asked for, as far as that is read before it is parsed as a spec."""

    prompt: str = ""
    negative_prompt: str | None = None
    model: str | None = None
    stages: list[AskedStage] | None = None
    color: str | None = None
    intent: str = "relative"
    strength: Number | None = None


class GuidanceRecord(Record):
    """The scales in use."""

    cfg: Number = 1.0
    embedded: Number | None = None


class RunRecord(Record):
    """What drew the picture; a store that was only filled has less."""

    spec: AskedRecord | None = None
    outputs: OutputsRecord | None = None
    sources: dict[str, SourceRecord] = Field(default_factory=dict)
    stages: list[StageRecord] = Field(default_factory=list)
    detected: list[int] | None = None
    picture: AskedRecord = Field(default_factory=AskedRecord)
    sampler: str = ""
    guidance: GuidanceRecord = Field(default_factory=GuidanceRecord)
    starts_from: dict[str, Any] = Field(default_factory=dict)
    version: str = ""
    weights: str = ""


class RunFile(Record):
    """The whole file; `documents` are the store's zarr.json by their names."""

    format: Literal["frieze store 1"]
    fingerprint: str
    layout: LayoutRecord
    run: RunRecord
    documents: dict[str, dict[str, Any]] | None = None


def is_sealed(values: Mapping[str, Any]) -> bool:
    """Whether run.json has a checksum, and with it all else that is in the store."""
    return checksums.NAME in values or "documents" in values


def parse(data: bytes) -> dict[str, Any]:
    """The JSON values of run.json; raises ValueError that says in one line what is wrong."""
    if len(data) > MOST_BYTES:
        raise ValueError(f"its run.json has {len(data)} bytes, {MOST_BYTES} are the most")
    try:
        values = checksums.values_of(data)
    except ValueError as error:
        raise ValueError(f"its run.json: {error}") from error
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        raise ValueError(f"its format is {str(found)[:40]!r}, this version reads {FORMAT!r}")
    if is_sealed(values) and not checksums.is_whole(values):
        raise ValueError("its run.json is not what was written")
    try:
        RunFile.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"its run.json: {where}: {first['msg']}") from error
    assert isinstance(values, dict)
    return values
