"""The server as OpenAI's client sees it: a real one on loopback, with real pictures."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from PIL import Image

from frieze.renderer import RenderSpec, render
from frieze.renderer.server.access import Access
from support.drawing import PROMPT
from support.serving import Served, served, settings

TOKENS = ("a-token-of-the-studio", "another-token-of-it")
SMALL: dict[str, Any] = {"prompt": PROMPT, "size": "64x64"}


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("serving") / "served"
    with served(settings(folder, tokens=TOKENS)) as found:
        yield found


def client(at: Served, token: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=at.api, api_key=token, max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def api(at: Served) -> Iterator[openai.OpenAI]:
    with client(at, TOKENS[0]) as found:
        yield found


@pytest.fixture(scope="module")
def stranger(at: Served) -> Iterator[openai.OpenAI]:
    with client(at, TOKENS[1]) as found:
        yield found


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


def inline(drawn: Any, index: int = 0) -> np.ndarray:
    return pixels(base64.b64decode(drawn.data[index].b64_json))


def png(size: tuple[int, int], colour: tuple[int, ...], hole: bool = False) -> bytes:
    picture = Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour)
    if hole:
        picture.paste((0, 0, 0, 0), (16, 16, 48, 48))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def test_pictures_are_those_of_a_render_with_seeds_that_count_up(
    api: openai.OpenAI, tmp_path: Path
) -> None:
    drawn = api.images.generate(**SMALL, n=2, extra_body={"seed": 5, "steps": 3})
    assert (drawn.size, drawn.output_format, drawn.background) == ("64x64", "png", "opaque")
    assert drawn.data is not None
    assert len(drawn.data) == 2
    for index, seed in enumerate((5, 6)):
        out = tmp_path / f"{seed}.png"
        spec = {"prompt": PROMPT, "height": 64, "width": 64, "num_inference_steps": 3}
        spec |= {"method": "none", "local": True, "device": "cpu"}
        render(RenderSpec(**spec, seed=seed, out=str(out)))
        assert (inline(drawn, index) == pixels(out.read_bytes())).all()
    assert (inline(drawn, 0) != inline(drawn, 1)).any()


def test_an_address_works_without_a_token_until_its_time_is_over(
    api: openai.OpenAI, stranger: openai.OpenAI
) -> None:
    drawn = api.images.generate(**SMALL, response_format="url")
    assert drawn.data is not None
    url = str(drawn.data[0].url)
    found = httpx2.get(url)
    assert (found.status_code, found.headers["content-type"]) == (200, "image/png")
    assert pixels(found.content).shape == (64, 64, 3)
    file_id = url.split("/")[-2]
    assert api.files.content(file_id).content == found.content
    assert api.files.retrieve(file_id).bytes == len(found.content)
    plain, _, query = url.partition("?")
    assert httpx2.get(plain).status_code == 401
    assert httpx2.get(f"{plain}?{query[:-1]}x").status_code == 401
    with pytest.raises(openai.NotFoundError):
        stranger.files.content(file_id)


def test_control_a_signature_is_of_one_file_and_one_time() -> None:
    access = Access((), b"k" * 32)
    signed = access.signature("file_a", 2**33)
    assert access.is_signed("file_a", str(2**33), signed)
    assert not access.is_signed("file_b", str(2**33), signed)
    assert not access.is_signed("file_a", str(2**33 + 1), signed)
    assert not access.is_signed("file_a", "1", access.signature("file_a", 1))
    assert not access.is_signed("file_a", "", "")


def test_a_mask_keeps_all_but_its_hole(api: openai.OpenAI) -> None:
    image, colour = png((64, 64), (40, 60, 120)), (40, 60, 120)
    drawn = api.images.edit(
        image=("picture.png", image),
        mask=("mask.png", png((64, 64), (0, 0, 0, 255), hole=True)),
        prompt=PROMPT,
        extra_body={"feather": 0, "strength": 0.9, "steps": 3},
    )
    found = inline(drawn)
    assert drawn.size == "64x64"
    outside = np.ones((64, 64), bool)
    outside[16:48, 16:48] = False
    assert (found[outside] == colour).all()
    assert (found[~outside] != colour).any()


def test_a_stream_shows_previews_and_ends_with_the_picture(api: openai.OpenAI) -> None:
    more = {"steps": 12, "seed": 3}
    events = list(api.images.generate(**SMALL, stream=True, partial_images=2, extra_body=more))
    *partial, last = events
    assert 1 <= len(partial) <= 2
    assert [each.partial_image_index for each in partial] == list(range(len(partial)))
    for each in partial:
        assert each.type == "image_generation.partial_image"
        assert pixels(base64.b64decode(each.b64_json)).shape == (64, 64, 3)
    assert last.type == "image_generation.completed"
    assert pixels(base64.b64decode(last.b64_json)).shape == (64, 64, 3)


def test_a_job_is_followed_and_its_pictures_asked_for_later(
    at: Served, api: openai.OpenAI, stranger: openai.OpenAI
) -> None:
    job: Any = api.post("/jobs", body={**SMALL, "priority": 3}, cast_to=object)
    assert (job["object"], job["n"], job["priority"]) == ("job", 1, 3)
    headers = {"Authorization": f"Bearer {TOKENS[0]}"}
    with httpx2.stream(
        "GET", f"{at.api}/jobs/{job['id']}/events", headers=headers, timeout=60
    ) as told:
        lines = list(told.iter_lines())
    kinds = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    assert kinds[-1] == "job.completed"
    data = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert all(each["id"] == job["id"] for each in data)
    assert data[-1]["status"] == "completed"
    found = httpx2.get(f"{at.api}/jobs/{job['id']}/images", headers=headers).json()
    assert pixels(base64.b64decode(found["data"][0]["b64_json"])).shape == (64, 64, 3)
    listed: Any = api.get("/jobs", cast_to=object)
    assert job["id"] in [each["id"] for each in listed["data"]]
    others: Any = stranger.get("/jobs", cast_to=object)
    assert job["id"] not in [each["id"] for each in others["data"]]
    gone: Any = api.delete(f"/jobs/{job['id']}", cast_to=object)
    assert gone["deleted"]
    assert not (at.server.queue.folder.root / job["id"]).exists()
    with pytest.raises(openai.NotFoundError):
        api.get(f"/jobs/{job['id']}", cast_to=object)


def test_a_key_that_came_before_draws_nothing_again(api: openai.OpenAI) -> None:
    more = {"Idempotency-Key": "poster-7"}
    first: Any = api.post("/jobs", body=SMALL, cast_to=object, options={"headers": more})
    again: Any = api.post("/jobs", body=SMALL, cast_to=object, options={"headers": more})
    assert first["id"] == again["id"]
    with pytest.raises(openai.ConflictError):
        api.post("/jobs", body={**SMALL, "seed": 1}, cast_to=object, options={"headers": more})


def test_models_and_figures_and_pages(at: Served, api: openai.OpenAI) -> None:
    assert [model.id for model in api.models.list()] == ["tiny", "other"]
    assert api.models.retrieve("other").owned_by == "frieze"
    headers = {"Authorization": f"Bearer {TOKENS[0]}"}
    figures = httpx2.get(f"{at.base}/metrics", headers=headers).text
    assert 'frieze_jobs{state="queued"} 0' in figures
    assert "\nfrieze_steps_total " in figures
    assert httpx2.get(f"{at.base}/healthz").json() == {"status": "ok"}
    page = httpx2.get(f"{at.base}/docs").text
    assert "/v1/images/edits" in page
    assert "src=" not in page
    assert "<script" not in page
    told = httpx2.get(f"{at.base}/openapi.json").json()
    assert set(told["components"]["schemas"]["Generation"]["properties"]) >= {"prompt", "seed"}


@pytest.mark.parametrize("token", ["wrong-but-long-enough", "x", "ä" * 20])
def test_nobody_comes_in_without_a_token(at: Served, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}".encode()}
    for path in ("/v1/models", "/v1/jobs", "/metrics", "/v1/files/file_x"):
        found = httpx2.get(f"{at.base}{path}", headers=headers)
        assert (found.status_code, found.json()["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(("name", "kind"), [("jpeg", "JPEG"), ("webp", "WEBP")])
def test_other_formats_are_what_they_are_called(api: openai.OpenAI, name: Any, kind: str) -> None:
    drawn = api.images.generate(**SMALL, output_format=name)
    assert drawn.output_format == name
    assert drawn.data is not None
    with Image.open(io.BytesIO(base64.b64decode(str(drawn.data[0].b64_json)))) as picture:
        assert (picture.format, picture.size) == (kind, (64, 64))
