"""What the server refuses: with the API's error object, whatever comes, and no file is touched."""

from __future__ import annotations

import io
import json
import random
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from frieze.renderer.server.limits import Limits
from support.serving import Served, served, settings

CANARY = "canary-that-is-no-picture"
OWN = {"host": "localhost"}
_opened: list[str] = []
_is_listening = False


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _is_listening and event in ("open", "os.listdir", "os.scandir", "socket.connect"):
        _opened.append(f"{event} {arguments[0] if event != 'socket.connect' else arguments[1]}")


sys.addaudithook(_hear)  # for good: nothing takes one away


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """What this process opens or connects to meanwhile."""
    global _is_listening
    _opened.clear()
    _is_listening = True
    yield _opened
    _is_listening = False


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("requests") / "served"
    limits = Limits(128 * 128, steps=50, queue=10_000, body=2**16, wait=5, priority=7)
    with served(settings(folder, limits=limits), draws=False) as found:
        yield found


@pytest.fixture(scope="module")
def web(at: Served) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=at.base, timeout=60) as found:
        yield found


def error_of(answer: httpx2.Response, at: Served | None = None) -> dict[str, Any]:
    """The error of an answer, which tells nothing of this machine."""
    told = answer.json()
    assert set(told) == {"error"}
    error: dict[str, Any] = told["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]
    assert "Traceback" not in answer.text
    assert str(Path.home()) not in answer.text
    if at is not None:
        assert str(at.server.queue.folder.root.parent) not in answer.text
    return error


@pytest.mark.parametrize(
    ("more", "status", "param", "part"),
    [
        ({"prompt": None}, 400, "prompt", "prompt"),
        ({"prompt": ""}, 400, "prompt", "prompt"),
        ({"prompt": "x" * 40_000}, 400, "prompt", "32000"),
        ({"prompt": "a\0b"}, 400, None, "UTF-8"),
        ({"model": "dall-e-3"}, 404, "model", "tiny, other"),
        ({"model": "../tiny"}, 404, "model", "tiny, other"),
        ({"n": 0}, 400, "n", "greater"),
        ({"n": 11}, 400, "n", "10"),
        ({"n": "two"}, 400, "n", "integer"),
        ({"size": "64by64"}, 400, "size", "WIDTHxHEIGHT"),
        ({"size": "256x256"}, 400, "size", "16384"),
        ({"size": "60x64"}, 400, "size", "64"),
        ({"size": "0x0"}, 400, "size", "0x0"),
        ({"size": "64x0"}, 400, "size", "64x0"),
        ({"n": True}, 400, "n", "integer"),
        ({"n": 1.0}, 400, "n", "integer"),
        ({"n": "2"}, 400, "n", "integer"),
        ({"priority": True}, 400, "priority", "integer"),
        ({"partial_images": True, "stream": True}, 400, "partial_images", "integer"),
        ({"output_compression": True}, 400, "output_compression", "integer"),
        ({"stream": 1}, 400, "stream", "bool"),
        ({"background": 1}, 400, "background", "bool"),
        ({"prompt": 5}, 400, "prompt", "string"),
        ({"steps": True}, 400, "num_inference_steps", "switch"),
        ({"seed": 1.5}, 400, "seed", "integer"),
        ({"steps": 51}, 400, "num_inference_steps", "50"),
        ({"steps": 5, "num_inference_steps": 5}, 400, "num_inference_steps", "both"),
        ({"steps": True, "seed": "x"}, 400, None, ""),
        ({"seed": -1}, 400, "seed", "greater"),
        ({"method": "best"}, 400, None, "best"),
        ({"method_options": {"spread": 3}}, 400, None, "spread"),
        ({"method_options": 3}, 400, "method_options", "method_options"),
        ({"scheduler": "os.system"}, 400, None, "os.system"),
        ({"quality": "hd"}, 400, "quality", "medium"),
        ({"background": "transparent"}, 400, "background", "opaque"),
        ({"style": "vivid"}, 400, "style", "prompt"),
        ({"output_format": "gif"}, 400, "output_format", "png"),
        ({"output_compression": 50}, 400, "output_compression", "50"),
        ({"partial_images": 2}, 400, "partial_images", "stream"),
        ({"stream": True, "n": 2}, 400, "n", "one"),
        ({"priority": 101}, 400, "priority", "100"),
        ({"priority": 8}, 400, "priority", "at most 7 works on this server"),
        ({"negative_promt": "x"}, 400, "negative_promt", "negative_prompt"),
        ({"user": "u" * 600}, 400, "user", "512"),
    ],
)
def test_a_field_that_does_not_work_is_named(
    web: httpx2.Client, at: Served, more: dict[str, Any], status: int, param: str | None, part: str
) -> None:
    body = {"prompt": "a sun", "size": "64x64", "background": True, **more}
    if more.get("stream"):
        del body["background"]
    answer = web.post("/v1/images/generations", json=body)
    error = error_of(answer, at)
    assert (answer.status_code, error["type"]) == (status, "invalid_request_error"), error
    assert param is None or error["param"] == param, error
    assert part in error["message"], error


FORBIDDEN = (
    *("model", "revision", "variant", "lora", "lora_2", "decoder", "controlnet", "control", "init"),
    *("upscale", "image", "mask", "edit", "stages", "out", "overwrite", "also", "workers", "local"),
    *("device", "address", "park", "preset", "color", "height", "timeout", "trace_digests"),
)


@pytest.mark.parametrize("field", FORBIDDEN)
@pytest.mark.parametrize("value", ["{}", "file://{}", "http://127.0.0.1:{port}/x.png", "../../{}"])
def test_no_field_leads_to_a_file_or_an_address(
    web: httpx2.Client, at: Served, opened: list[str], tmp_path: Path, field: str, value: str
) -> None:
    canary = tmp_path / CANARY
    canary.write_text("secret")
    assert [line for line in opened if CANARY in line], "control: what is opened is heard of"
    opened.clear()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        body = {"prompt": "a sun", field: value.format(canary, port=port)}
        answer = web.post("/v1/images/generations", json=body)
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.accept()
    assert answer.status_code in (400, 404)
    assert error_of(answer)["param"] == field
    assert not [line for line in opened if CANARY in line]


IDS = [
    *(
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/etc/passwd",
        "%2fetc%2fpasswd",
        "file_%00",
        "x" * 5000,
    ),
    *(
        "../job.json",
        "file_0_0",
        "file_" + "0" * 32 + "_0/../../key",
        "file_" + "0" * 32 + "_00000",
    ),
    *("..\\..\\key", "frieze", "key", "job_%2e%2e", "file:%2f%2f%2fetc%2fpasswd", "%C0%AE%C0%AE"),
]


@pytest.mark.parametrize("name", IDS)
def test_ids_alone_lead_to_files(web: httpx2.Client, at: Served, name: str) -> None:
    for path in (f"/v1/files/{name}/content", f"/v1/files/{name}", f"/v1/jobs/{name}", f"/{name}"):
        answer = web.get(path)
        assert answer.status_code in (404, 405), (path, answer.status_code)
        assert error_of(answer, at)["type"] == "invalid_request_error"


def raw(at: Served, request: bytes) -> bytes:
    """What a request that no client writes is answered."""
    host, port = at.base.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(request)
        line.shutdown(socket.SHUT_WR)
        found = b""
        while part := line.recv(4096):
            found += part
    return found


def test_dots_in_an_address_lead_nowhere(at: Served) -> None:
    for path in (b"/v1/files/../../../../etc/passwd", b"//etc/passwd", b"/docs/../../etc/passwd"):
        told = raw(
            at, b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        assert told.startswith(b"HTTP/1.1 404 "), told
        assert b"root:" not in told
    assert raw(at, b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_pages_of_other_sites_may_not_ask(web: httpx2.Client) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}, {"Host": "["}):
        answer = web.get("/v1/models", headers=headers)
        assert answer.status_code == 403
        assert error_of(answer)["code"] == "forbidden"
    assert web.get("/v1/models", headers={"Origin": "http://localhost:3000"}).status_code == 200


def test_bodies_are_bounded_and_of_one_kind(web: httpx2.Client, at: Served) -> None:
    path = "/v1/images/generations"
    cases = [
        ({"content": b"x" * 70_000, "headers": {"content-type": "application/json"}}, 413),
        ({"content": b"x" * 3_000_000, "headers": {"content-type": "application/json"}}, 413),
        ({"content": b"x" * 3_000_000, "headers": {"content-type": "text/plain"}}, 415),
        ({"content": b"{}", "headers": {"content-type": "text/plain"}}, 415),
        ({"content": b"{}"}, 415),
        ({"content": b"\xff", "headers": {"content-type": "application/json"}}, 400),
        ({"content": b"[" * 9999, "headers": {"content-type": "application/json"}}, 400),
        ({"content": b'{"a":1,"a":2}', "headers": {"content-type": "application/json"}}, 400),
        ({"content": b'{"n":NaN}', "headers": {"content-type": "application/json"}}, 400),
        ({"content": b"9" * 9999, "headers": {"content-type": "application/json"}}, 400),
        ({"json": [1]}, 400),
        ({"files": {"image": b"x"}}, 415),
    ]
    for more, status in cases:
        answer = web.post(path, **more)
        assert answer.status_code == status, (more, answer.text)
        error_of(answer, at)
    chunks = (b"x" * 10_000 for _ in range(200))
    headers = {"content-type": "application/json"}
    assert web.post(path, content=chunks, headers=headers).status_code == 413
    assert web.put(path).status_code == 405


def png(size: tuple[int, int] = (64, 64), mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, "PNG")
    return file.getvalue()


EDITS: list[tuple[dict[str, Any], dict[str, str], str | None]] = [
    ({}, {"prompt": "a sun"}, "image"),
    ({"image": b"no picture"}, {"prompt": "a sun"}, "image"),
    ({"image": png()[:60]}, {"prompt": "a sun"}, "image"),
    ({"image": b"<svg xmlns='http://www.w3.org/2000/svg'/>"}, {"prompt": "a sun"}, "image"),
    ({"image": png((400, 400))}, {"prompt": "a sun"}, "image"),
    ({"image": png(), "mask": png((32, 64), "RGBA")}, {"prompt": "a sun"}, "mask"),
    ({"image": png(), "mask": png()}, {"prompt": "a sun"}, "mask"),
    ({"image": png(), "mask": b"x"}, {"prompt": "a sun"}, "mask"),
    ({"image": png(), "init": png()}, {"prompt": "a sun"}, "init"),
    ({"image": png()}, {}, "prompt"),
    ({"image": png()}, {"prompt": "a sun", "init": "/etc/passwd"}, "init"),
    ({"mask": png()}, {"prompt": "a sun", "image": "file:///etc/passwd"}, "image"),
    ({"image": png()}, {"prompt": "a sun", "method_options[margin]": "x"}, None),
    ({"image": png()}, {"prompt": "a sun", "strength": "much"}, "strength"),
]


@pytest.mark.parametrize(("files", "fields", "param"), EDITS)
def test_an_edit_that_does_not_work_is_refused_and_leaves_nothing(
    web: httpx2.Client,
    at: Served,
    files: dict[str, Any],
    fields: dict[str, str],
    param: str | None,
) -> None:
    root = at.server.queue.folder.root
    before = sorted(root.iterdir())
    parts = {name: ("../../evil.png", data, "image/png") for name, data in files.items()}
    data = {**fields, "background": "true"}
    answer = web.post("/v1/images/edits", data=data, files=parts or {"x": b""})
    assert answer.status_code == 400, answer.text
    error = error_of(answer, at)
    assert param is None or error["param"] in (param, "x"), error
    assert sorted(root.iterdir()) == before


def test_an_upload_has_a_name_of_ours(web: httpx2.Client, at: Served) -> None:
    parts = {"image": ("../../evil.png", png(), "image/png")}
    answer = web.post("/v1/images/edits", data={"prompt": "a", "background": "true"}, files=parts)
    assert answer.status_code == 202
    folder = at.server.queue.folder.root / answer.json()["id"]
    assert {path.name for path in folder.iterdir()} == {"image.png", "job.json"}
    assert not list(folder.parents[1].rglob("evil.png"))


NASTY: list[Any] = [
    *(
        None,
        True,
        -1,
        0,
        1e308,
        2**63,
        "",
        "a",
        "../x",
        "/etc/passwd",
        "64x64",
        "\x1b[2J",
        "\u202e",
    ),
    *([], [[]], {}, {"a": {"b": []}}, "9" * 400, "\ud83d" * 50, ["a"] * 50, 0.1, "file:///x"),
    *("http://127.0.0.1:1/", "%s%n", "${jndi:x}", "'; --", "1e5", "nan", "0x10", "64X128", "auto"),
]


def bodies(number: int) -> Iterator[Any]:
    """Bodies of fields that exist, or nearly, with values that may be anything."""
    draw = random.Random(17)
    names = [
        *("prompt", "model", "n", "size", "response_format", "output_format", "quality", "stream"),
        *("partial_images", "user", "priority", "seed", "steps", "guidance_scale", "method"),
        *("method_options", "attend", "wrap", "cache", "shift", "bits", "dpi", "strength"),
        *("feather", "scheduler", "moderation", "out", "lora", "negative_prompt", "true_cfg_scale"),
    ]
    for _ in range(number):
        body = {"prompt": "a sun", "background": True}
        for name in draw.sample(names, draw.randint(1, 4)):
            if draw.random() < 0.1:
                name = name[: draw.randint(0, len(name))]
            body[name] = draw.choice(NASTY)
        yield body


def test_no_body_breaks_the_server(web: httpx2.Client, at: Served) -> None:
    """Hundreds of any fields, and JSON that is torn anywhere."""
    statuses = set()
    for body in bodies(250):
        answer = web.post(
            "/v1/images/generations",
            content=json.dumps(body),
            headers={"content-type": "application/json"},
        )
        statuses.add(answer.status_code)
        assert answer.status_code in (200, 202, 400, 404), (body, answer.text)
        if answer.status_code >= 400:
            error_of(answer, at)
    whole = json.dumps({"prompt": "a sun", "n": 1, "background": True, "seed": 5}).encode()
    draw, headers = random.Random(18), {"content-type": "application/json"}
    for _ in range(60):
        torn = bytearray(whole[: draw.randint(0, len(whole))])
        if torn:
            torn[draw.randrange(len(torn))] = draw.randrange(256)
        answer = web.post("/v1/images/generations", content=bytes(torn), headers=headers)
        assert answer.status_code in (202, 400), (torn, answer.text)
    assert {202, 400} <= statuses, "control: some are drawn, some are refused"


def test_no_form_breaks_the_server(web: httpx2.Client, at: Served) -> None:
    """Forms with bytes changed anywhere, their borders included."""
    head = b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    whole = b"".join(
        [
            head % (b"prompt", b"", b"a sun"),
            head % (b"background", b"", b"true"),
            head % (b"image", b'; filename="a.png"', png()),
            b"--b--\r\n",
        ]
    )
    draw, headers = random.Random(19), {"content-type": "multipart/form-data; boundary=b"}
    statuses = []
    for number in range(80):
        torn = bytearray(whole)
        for _ in range(min(number, 3)):
            torn[draw.randrange(len(torn))] = draw.randrange(256)
        if number % 5 == 4:
            torn = torn[: draw.randrange(len(torn))]
        answer = web.post("/v1/images/edits", content=bytes(torn), headers=headers)
        statuses.append(answer.status_code)
        assert answer.status_code in (202, 400, 404, 415), answer.text
        if answer.status_code != 202:
            error_of(answer, at)
    assert statuses[0] == 202
    assert statuses.count(400) > 10
