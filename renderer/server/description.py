"""What the server takes and answers: as OpenAPI, and as a page for people."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib import metadata
from typing import Any

from ..spec.render_spec import RenderSpec
from .image_request import ImageRequest

# (method, address, what it does, media type of the body, whether it needs a token)
ADDRESSES = (
    ("post", "/v1/images/generations", "Draw pictures.", "application/json", True),
    (
        "post",
        "/v1/images/edits",
        "Redraw a picture, or where its mask is transparent.",
        "multipart/form-data",
        True,
    ),
    ("get", "/v1/models", "The models that can be asked for.", "", True),
    ("get", "/v1/models/{id}", "One of them.", "", True),
    ("get", "/v1/jobs", "Your jobs, the newest first: limit, after.", "", True),
    ("post", "/v1/jobs", "Draw pictures, answered at once with a job.", "application/json", True),
    ("get", "/v1/jobs/{id}", "How a job stands.", "", True),
    ("delete", "/v1/jobs/{id}", "Cancel a job, or delete one that has ended.", "", True),
    ("post", "/v1/jobs/{id}/cancel", "Cancel a job.", "", True),
    ("get", "/v1/jobs/{id}/events", "What happens to a job, as server-sent events.", "", True),
    ("get", "/v1/jobs/{id}/images", "The pictures of a job that is completed.", "", True),
    ("get", "/v1/files/{id}", "About a picture.", "", True),
    ("get", "/v1/files/{id}/content", "A picture.", "", True),
    ("get", "/metrics", "Figures for Prometheus.", "", True),
    ("get", "/healthz", "Whether the server is there.", "", False),
)
STATUSES = {
    "400": "A field is unknown or out of range.",
    "401": "No token of this server.",
    "404": "There is no such thing, or it is another's.",
    "409": "The job's state does not allow it, or the key came with another request.",
    "413": "The body is too long.",
    "415": "The body is of another type.",
    "429": "The queue is full; Retry-After says when to try again.",
    "500": "The render failed.",
    "503": "The server is stopping.",
    "504": "It is still drawn; the job goes on.",
}


def document(fields: frozenset[str]) -> dict[str, Any]:
    """The OpenAPI document of a server that allows these fields of a spec."""
    paths: dict[str, Any] = {}
    for method, address, about, body, needs_token in ADDRESSES:
        told: dict[str, Any] = {"summary": about, "responses": _responses()}
        told["parameters"] = [
            {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
        ] * ("{id}" in address)
        told |= {} if needs_token else {"security": []}
        if body:
            name = "Edit" if "multipart" in body else "Generation"
            schema = {"$ref": f"#/components/schemas/{name}"}
            told["requestBody"] = {"required": True, "content": {body: {"schema": schema}}}
        paths.setdefault(address, {})[method] = told
    return {
        "openapi": "3.1.0",
        "info": {"title": "Frieze", "version": metadata.version("frieze")},
        "paths": paths,
        "security": [{"token": []}],
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Generation": _schema(fields), "Edit": _edit(fields), "Error": _error()},
        },
    }


def page(told: Mapping[str, Any]) -> str:
    """The same as HTML, without scripts and without anything from elsewhere."""
    rows = "".join(
        f"<tr><td><code>{escape(method.upper())} {escape(address)}</code><td>"
        f"{escape(about['summary'])}"
        for address, methods in told["paths"].items()
        for method, about in methods.items()
    )
    schema = told["components"]["schemas"]["Generation"]
    fields = "".join(
        f"<tr><td><code>{escape(name)}</code><td>{escape(str(about.get('description', '')))}"
        for name, about in schema["properties"].items()
    )
    statuses = "".join(f"<tr><td>{code}<td>{escape(text)}" for code, text in STATUSES.items())
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Frieze</title><style>'
        "body{font:16px/1.5 sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}"
        "td{padding:.2rem 1rem .2rem 0;vertical-align:top}pre{background:#eee;padding:1rem;"
        "overflow:auto}@media(prefers-color-scheme:dark){body{background:#111;color:#eee}"
        "pre{background:#222}}</style><h1>Frieze</h1><p>The images API, as clients of it speak it;"
        ' <a href="/openapi.json">openapi.json</a> is the same for programs.<pre>'
        f"{escape(EXAMPLE)}</pre><h2>Addresses</h2><table>{rows}</table><h2>Fields</h2>"
        f"<table>{fields}</table><h2>Errors</h2><table>{statuses}</table></html>"
    )


EXAMPLE = """from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="TOKEN")
drawn = client.images.generate(
    prompt="a red sun over blue mountains", size="4096x3072", response_format="url",
    extra_body={"seed": 7, "num_inference_steps": 24},
)
print(drawn.data[0].url)"""


def _responses() -> dict[str, Any]:
    schema = {"schema": {"$ref": "#/components/schemas/Error"}}
    errors = {
        code: {"description": text, "content": {"application/json": schema}}
        for code, text in STATUSES.items()
    }
    return {"200": {"description": "As asked for."}, **errors}


def _schema(fields: frozenset[str]) -> dict[str, Any]:
    own = ImageRequest.model_json_schema()
    spec = RenderSpec.model_json_schema(ref_template="#/components/schemas/{model}")["properties"]
    named = {name: spec[name] for name in RenderSpec.model_fields if name in fields}
    return {
        "type": "object",
        "required": ["prompt"],
        "additionalProperties": False,
        "properties": {**own["properties"], **named},
    }


def _edit(fields: frozenset[str]) -> dict[str, Any]:
    whole = _schema(fields)
    file = {"type": "string", "format": "binary"}
    about = {
        "image": {**file, "description": "PNG, JPEG or WebP"},
        "mask": {**file, "description": "transparent where something else is wanted"},
    }
    return whole | {
        "required": ["image", "prompt"],
        "properties": {**about, **whole["properties"]},
    }


def _error() -> dict[str, Any]:
    text = {"type": ["string", "null"]}
    inner = {"message": {"type": "string"}, "type": {"type": "string"}, "param": text, "code": text}
    return {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "object", "required": [*inner], "properties": inner}},
    }
