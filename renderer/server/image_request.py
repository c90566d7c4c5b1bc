"""What a client asks for, in the words of the images API and in those of a spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..errors import ExportError, SpecError, shown
from ..files.location import Location, location
from ..outputs.exporting import exporter
from ..spec.field_errors import nearest
from ..spec.place import height_width
from ..spec.render_spec import RenderSpec, parse
from ..spec.values import ValuesError, from_json
from .allowed_fields import SHORT
from .api_error import ApiError, invalid, refused
from .jobs.job import SUFFIXES
from .limits import MOST_PICTURES, MOST_PRIORITY, MOST_PROMPT, Limits
from .served_models import ServedModel

TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp", "tiff": "image/tiff"}
AS_IT_IS = (None, "auto", "medium", "standard")
TEXTS = frozenset({"negative_prompt"})  # fields of which no text is a number


class ImageRequest(BaseModel):
    """The fields of the images API; None is what the model's preset says."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    prompt: str = Field(description="what the picture shows", min_length=1, max_length=MOST_PROMPT)
    model: str | None = Field(None, description="one of /v1/models; default: the first")
    n: int | None = Field(None, ge=1, le=MOST_PICTURES, description="pictures; seeds count up")
    size: str | None = Field(None, description="WIDTHxHEIGHT in pixels, or auto: the preset's")
    response_format: Literal["url", "b64_json"] | None = Field(None, description="default b64_json")
    output_format: Literal["png", "jpeg", "webp", "tiff"] | None = Field(
        None, description="default png"
    )
    output_compression: int | None = Field(None, ge=0, le=100, description="100 alone works")
    quality: str | None = Field(None, description="auto, medium and standard work: the preset's")
    background: bool | Literal["transparent", "opaque", "auto"] | None = Field(
        None, description="true: answer at once with a job; opaque and auto work"
    )
    stream: bool | None = Field(None, description="answer by server-sent events")
    partial_images: int | None = Field(None, ge=0, le=3, description="previews, at most; streamed")
    moderation: Literal["low", "auto"] | None = Field(None, description="nothing is filtered here")
    style: None = Field(None, description="say it in the prompt")
    input_fidelity: None = Field(None, description="strength says it")
    user: str | None = Field(None, max_length=512, description="told back as safety_identifier")
    safety_identifier: str | None = Field(None, max_length=512, description="told back")
    priority: Annotated[int, Field(ge=-MOST_PRIORITY, le=MOST_PRIORITY)] = Field(
        0, description="larger ones are drawn first"
    )

    @field_validator("background", "stream", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        """Forms say true as a text."""
        return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value

    @property
    def is_background(self) -> bool:
        """Whether the answer is a job, at once."""
        return self.background is True

    @property
    def format(self) -> str:
        """The format of the file."""
        return self.output_format or "png"

    @property
    def is_url(self) -> bool:
        """Whether pictures are told by their addresses."""
        return self.response_format == "url"

    def told_back(self) -> dict[str, Any]:
        """What an answer repeats of the request."""
        who = self.safety_identifier or self.user
        return {"background": "opaque", "output_format": self.format, "quality": "medium"} | (
            {"safety_identifier": who} if who else {}
        )


def read(
    body: Mapping[str, Any], fields: frozenset[str], *, is_form: bool = False
) -> tuple[ImageRequest, dict[str, Any]]:
    """A body as the API's fields and those of a spec that are allowed; raises `ApiError`.

    In a form numbers are texts.
    """
    told = {SHORT.get(name, name): value for name, value in body.items()}
    if len(told) < len(body):
        raise invalid("steps and num_inference_steps both given; use one", "num_inference_steps")
    own = {name: told.pop(name) for name in list(told) if name in fields}
    known = [*ImageRequest.model_fields, *sorted(fields)]
    for name in told:
        if name not in ImageRequest.model_fields:
            raise invalid(_unknown(name, known), name[:100], "unknown_parameter")
    try:
        # Of JSON true is no number, and no text is one; of a form all are texts.
        request = ImageRequest.model_validate(told, strict=not is_form)
    except ValidationError as error:
        raise _fault(dict(error.errors()[0])) from None
    _check(request)
    if is_form:
        own = {n: value if n in TEXTS else _number(value) for n, value in own.items()}
    return request, {name: value for name, value in own.items() if value is not None}


def _number(value: Any) -> Any:
    """What a form's text says, where that is a number or a switch."""
    if isinstance(value, dict):
        return {name: _number(inner) for name, inner in value.items()}
    try:
        found = from_json(value)
    except ValuesError:
        return value
    return found if isinstance(found, int | float) else value


def _unknown(name: str, known: list[str]) -> str:
    if name in RenderSpec.model_fields:
        return f"{name} is not for clients of this server; there are: {', '.join(known)}"
    return f"unknown field {shown(name)}; the nearest is {nearest(name, known)!r}"


def _fault(item: dict[str, Any]) -> ApiError:
    field = str(item["loc"][0]) if item["loc"] else "body"
    if item["type"] == "missing":
        return invalid(f"no {field}; give one", field, "missing_required_parameter")
    works = ImageRequest.model_fields[field].description
    why = item["msg"].removeprefix("Value error, ")
    return invalid(f"{field} = {shown(item['input'])}: {why}; {field}: {works}", field)


def _check(request: ImageRequest) -> None:
    """What of the API is not to be had here is said, never passed over."""
    if request.quality not in AS_IT_IS:
        raise invalid(
            f"quality {shown(request.quality)} is not to be had; auto, medium and standard are "
            "what the model's preset says, and num_inference_steps says how long it is drawn",
            "quality",
        )
    if request.background == "transparent":
        raise invalid(
            "background 'transparent' is not to be had; opaque or auto works", "background"
        )
    if request.output_compression not in (None, 100):
        raise invalid(
            f"output_compression {request.output_compression} is not to be had; leave it out",
            "output_compression",
        )
    if request.partial_images and not request.stream:
        raise invalid("partial_images are streamed; add stream: true", "partial_images")
    if request.stream and request.is_background:
        raise invalid("stream and background both given; a job's events are its stream", "stream")
    if request.stream and (request.n or 1) > 1:
        raise invalid(f"n {request.n}: one picture is streamed at a time", "n")
    try:
        exporter(location(f"picture{SUFFIXES[request.format]}", SpecError))
    except ExportError:
        raise invalid(
            f"output_format {request.format!r} is not to be had here; png or tiff works",
            "output_format",
        ) from None


def items(
    request: ImageRequest,
    own: Mapping[str, Any],
    model: ServedModel,
    limits: Limits,
    uploads: Mapping[str, Location],
    upload_size: tuple[int, int] | None = None,
) -> list[dict[str, Any]]:
    """The items of a batch that this asks for, one a picture; raises `ApiError`.

    `uploads` are the files of the fields `init` and `mask`, `upload_size` rows and columns.
    """
    if request.priority > limits.priority:
        raise invalid(
            f"priority {request.priority}: at most {limits.priority} works on this server",
            "priority",
        )
    values = {**model.values, **own, "prompt": request.prompt}
    values |= {field: str(path) for field, path in uploads.items()}
    if request.size not in (None, "auto"):
        try:
            values |= height_width(str(request.size))
        except SpecError as error:
            raise invalid(str(error), "size") from None
    elif upload_size is not None:
        values |= {"height": upload_size[0], "width": upload_size[1]}
    try:
        spec = parse(values)
    except SpecError as error:
        raise refused(error, request.size) from None
    check_costs(spec, limits)
    first = spec.seed
    return [
        {
            **values,
            "seed": (first + i) % 2**63,
            "name": str(i),
            "out": f"{i}{SUFFIXES[request.format]}",
        }
        for i in range(request.n or 1)
    ]


def check_costs(spec: RenderSpec, limits: Limits) -> None:
    """Raise `ApiError` for more pixels or steps than the owner allows."""
    if (pixels := spec.height * spec.width) > limits.pixels:
        raise invalid(
            f"size {spec.width}x{spec.height} is {pixels} pixels; at most {limits.pixels} work",
            "size",
        )
    if spec.num_inference_steps > limits.steps:
        raise invalid(
            f"num_inference_steps {spec.num_inference_steps}: at most {limits.steps} work",
            "num_inference_steps",
        )
