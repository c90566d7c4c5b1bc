"""What the server answers, to whom, and that it reads and nothing else."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from contracts.export import clip, draw, make_store, picture
from frieze.renderer.journal.journal import FileJournal
from frieze.renderer.store.layout import LatentArray, halve
from frieze.renderer.store.store import SavedState, Store
from frieze.renderer.viewer import entries
from frieze.renderer.viewer.access import POLICY
from frieze.renderer.viewer.batch_entry import BatchEntry
from frieze.renderer.viewer.entries import Collection
from frieze.renderer.viewer.server import application
from support.s3_server import BUCKET, S3Server

SECRET = "a-token"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores of every kind and a batch, under one folder."""
    path = tmp_path_factory.mktemp("view")
    make_store(path / "done.zarr", picture(600, 700), (128, 128))
    begun = make_store(
        path / "begun.zarr",
        picture(256, 256),
        (64, 64),
        latents=(LatentArray("0", (2, 4, 1, 32, 32), 16),),
        finish=False,
    )
    draw(begun, picture(256, 256), 64, 64, None)
    latents = np.random.default_rng(0).normal(size=(4, 1, 32, 32)).astype(np.float32)
    parts = [begun.save_latents(0, 0, slice(0, 32), latents)]
    begun.confirm_state(SavedState(0, 1, 0), parts)
    (path / "inner").mkdir()
    make_store(path / "inner" / "clip.zarr", clip(4, 96, 128), (96, 128))
    make_store(path / "damaged.zarr", picture(64, 64), (64, 64))
    (path / "damaged.zarr" / "frieze" / "run.json").write_text('{"format": "<script>"}')
    (path / "half.zarr" / "frieze").mkdir(parents=True)
    (path / "secret.txt").write_text("nobody's business")
    os.symlink(path / "done.zarr", path / "link.zarr")
    journal = FileJournal(path / "frieze" / "journal.jsonl")
    journal.path.parent.mkdir()
    digests = {"one": "a", "two<b>": "b", "three": "c"}
    done = {"width": 64, "height": 64, "seconds": 1.5, "retries": 0}
    for event in (
        {"event": "batch", "items": digests},
        {"event": "item", "name": "one", "state": "done", "outputs": [], **done},
        {"event": "item", "name": "two<b>", "state": "failed", "error": "no\x1b[31m memory"},
        {"event": "item", "name": "three", "state": "running"},
    ):
        journal.append(event)
    return path


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    with TestClient(application(Collection(folder)), base_url="http://127.0.0.1:8484") as found:
        yield found


def stores(client: TestClient) -> dict[str, dict[str, Any]]:
    answer = client.get("/state.json")
    assert answer.status_code == 200
    return {about["name"]: about for about in answer.json()["stores"]}


def tile(client: TestClient, about: dict[str, Any], place: str, frame: int = 0) -> np.ndarray:
    answer = client.get(f"/stores/{about['key']}/{frame}_files/{place}.png")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def test_everything_in_a_folder_is_listed_once(client: TestClient) -> None:
    found = stores(client)
    assert sorted(found) == ["begun.zarr", "damaged.zarr", "done.zarr", "inner/clip.zarr"]
    done, begun = found["done.zarr"], found["begun.zarr"]
    assert (done["state"], done["width"], done["height"]) == ("done", 700, 600)
    assert done["prompt"] == "a red sun over blue mountains, été 漢"
    assert (begun["state"], begun["blocks"], begun["num_blocks"]) == ("running", 4, 16)
    assert (found["inner/clip.zarr"]["frames"], found["inner/clip.zarr"]["fps"]) == (4, 24.0)
    assert found["damaged.zarr"]["state"] == "damaged"
    assert "its format is '<script>'" in found["damaged.zarr"]["line"]
    assert "\n" not in found["damaged.zarr"]["line"]
    text = client.get("/state.json").text
    assert "/somewhere/private" not in text


def test_a_batch_is_told_by_its_items(client: TestClient, folder: Path) -> None:
    (batch,) = client.get("/state.json").json()["batches"]
    assert (batch["name"], batch["at_work"]) == (folder.name, True)  # by this very process
    assert batch["counts"] == {"done": 1, "failed": 1, "running": 1}
    assert [item["name"] for item in batch["items"]] == ["one", "two<b>", "three"]
    assert batch["items"][1]["error"] == r"no\x1b[31m memory"


def test_tiles_are_the_stores_own_pixels(client: TestClient) -> None:
    about, expected = stores(client)["done.zarr"], picture(600, 700)
    assert about["top"] == 10
    np.testing.assert_array_equal(tile(client, about, "10/0_0"), expected[:512, :512])
    np.testing.assert_array_equal(tile(client, about, "10/1_1"), expected[512:, 512:])
    np.testing.assert_array_equal(tile(client, about, "9/0_0"), halve(expected))
    assert tile(client, about, "0/0_0").shape == (1, 1, 3)
    frames = stores(client)["inner/clip.zarr"]
    np.testing.assert_array_equal(tile(client, frames, "7/0_0", 3), clip(4, 96, 128)[3])
    xml = client.get(f"/stores/{about['key']}/0.dzi").text
    assert 'TileSize="512"' in xml
    assert '<Size Width="700" Height="600" />' in xml


def test_only_what_will_not_change_is_cached(client: TestClient) -> None:
    found = stores(client)
    whole = client.get(f"/stores/{found['done.zarr']['key']}/0_files/10/0_0.png")
    part = client.get(f"/stores/{found['begun.zarr']['key']}/0_files/8/0_0.png")
    assert "immutable" in whole.headers["cache-control"]
    assert part.headers["cache-control"] == "no-store"
    pixels = np.asarray(Image.open(io.BytesIO(part.content)))
    assert (pixels[64:128, :, 3] == 255).all()
    assert not pixels[128:].any()
    first = client.get("/state.json")
    tag = {"If-None-Match": first.headers["etag"]}
    assert client.get("/state.json", headers=tag).status_code in (200, 304)  # time goes on


def test_latents_show_before_pixels(client: TestClient) -> None:
    key = stores(client)["begun.zarr"]["key"]
    about = client.get(f"/stores/{key}/about.json").json()
    assert about["preview"] == {"stage": 1, "step": 1, "is_fitted": False}
    answer = client.get(f"/stores/{key}/0.preview.png")
    assert Image.open(io.BytesIO(answer.content)).size == (256, 256)  # the picture's
    none = stores(client)["done.zarr"]["key"]
    assert client.get(f"/stores/{none}/0.preview.png").status_code == 404


def test_a_render_that_goes_on_is_seen_to(tmp_path: Path) -> None:
    expected = picture(256, 128)
    store = make_store(tmp_path / "a.zarr", expected, (64, 64), finish=False)
    collection = Collection(tmp_path)
    client = TestClient(application(collection), base_url="http://localhost")
    seen = []
    for row in range(0, 256, 64):
        draw(store, expected, row, 64, None)
        for entry in collection.stores.values():
            entry.looked = 0.0
        about = stores(client)["a.zarr"]
        seen.append((about["blocks"], about["revision"]))
        assert tile(client, about, "8/0_0").shape == (256, 128, 3 if row == 192 else 4)
    store.finish()
    assert [blocks for blocks, _ in seen] == [2, 4, 6, 8]
    assert len({revision for _, revision in seen}) == 4
    # Another picture of that name is another edition: nothing that was cached is taken for it.
    for entry in collection.stores.values():
        entry.looked = 0.0
    before = stores(client)["a.zarr"]
    (tmp_path / "a.zarr").rename(tmp_path / ".gone")
    make_store(tmp_path / "a.zarr", 255 - expected, (64, 64))
    for entry in collection.stores.values():
        entry.looked = 0.0
    after = stores(client)["a.zarr"]
    assert before["key"] == after["key"]
    assert before["edition"] != after["edition"]
    np.testing.assert_array_equal(tile(client, after, "8/0_0"), 255 - expected)


def test_stores_come_and_go(tmp_path: Path) -> None:
    collection = Collection(tmp_path)
    client = TestClient(application(collection), base_url="http://localhost")
    assert stores(client) == {}
    make_store(tmp_path / "a.zarr", picture(64, 64), (64, 64))
    collection.scanned = 0.0
    key = stores(client)["a.zarr"]["key"]
    assert client.get(f"/stores/{key}/0_files/6/0_0.png").status_code == 200
    (tmp_path / "a.zarr").rename(tmp_path / ".gone")
    collection.stores[key].looked = 0.0
    answer = client.get(f"/stores/{key}/0_files/6/0_0.png")
    assert (answer.status_code, answer.text.count("\n")) == (404, 0)
    collection.scanned = 0.0
    assert stores(client) == {}


@pytest.mark.parametrize(
    "path",
    [
        "/secret.txt",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/page/page.html",
        "/page.html",
        "/server.py",
        "/..\\server.py",
        "/stores/../secret.txt",
        "/stores/done.zarr/about.json",
        "/stores/..%2f..%2fdone.zarr/0_files/9/0_0.png",
        "/stores/%2Fetc/about.json",
        "/stores/{key}/../../secret.txt",
        "/stores/{key}/0_files/9/..%2f0_0.png",
        "/stores/{key}/0_files/9/0_0.png%00.txt",
        "/stores/{key}/0_files/-1/0_0.png",
        "/stores/{key}/0_files/11/0_0.png",
        "/stores/{key}/0_files/9/999999999_0.png",
        "/stores/{key}/0_files/" + "9" * 5000 + "/0_0.png",
        "/stores/{key}/1_files/9/0_0.png",
        "/stores/{key}/1.dzi",
        "/stores/{key}/1.preview.png",
        "/stores/{key}/0.dzi/",
        "//etc/passwd",
    ],
)
def test_no_path_reaches_a_file(client: TestClient, path: str) -> None:
    key = stores(client)["done.zarr"]["key"]
    answer = client.get(path.format(key=key), follow_redirects=False)
    assert answer.status_code in (404, 307), answer.text
    assert "business" not in answer.text
    assert answer.text.count("\n") == 0


def test_a_key_of_a_damaged_store_is_one_line(client: TestClient) -> None:
    key = stores(client)["damaged.zarr"]["key"]
    for path in ("0_files/0/0_0.png", "0.dzi", "0.preview.png"):
        answer = client.get(f"/stores/{key}/{path}")
        assert answer.status_code == 404
        assert answer.text.count("\n") == 0
    assert client.get(f"/stores/{key}/about.json").json()["state"] == "damaged"


def test_what_a_log_cannot_say_is_no_fault_of_the_servers(tmp_path: Path) -> None:
    make_store(tmp_path / "a.zarr", picture(64, 64), (64, 64), finish=False)
    make_store(tmp_path / "b.zarr", picture(64, 64), (64, 64))
    log = tmp_path / "a.zarr" / "frieze" / "log.jsonl"
    lines = (
        {"event": "plan", "stages": "none"},
        {"event": "step", "stage": "x"},
        {"event": [1]},
        7,
    )
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    client = TestClient(application(Collection(tmp_path)), base_url="http://localhost")
    found = stores(client)
    assert found["b.zarr"]["state"] == "done"
    assert found["a.zarr"]["state"] in ("damaged", "running")
    key = found["a.zarr"]["key"]
    assert client.get(f"/stores/{key}/about.json").status_code == 200


def test_of_a_large_batch_what_needs_a_look_comes_first(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "frieze" / "journal.jsonl")
    journal.path.parent.mkdir()
    journal.append({"event": "batch", "items": {f"item {n}": "a" for n in range(600)}})
    journal.append({"event": "item", "name": "item 599", "state": "failed", "error": "lost"})
    told = BatchEntry("b", tmp_path).as_json()
    assert told["counts"] == {"queued": 599, "failed": 1}
    assert (told["items"][0]["name"], len(told["items"])) == ("item 599", 500)
    journal.path.write_text("nonsense\n" + journal.path.read_text())
    assert "line 1" in BatchEntry("b", tmp_path).as_json()["fault"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8484", "192.168.0.7", "", "[::2]"])
def test_names_that_are_not_ours_are_refused(client: TestClient, host: str) -> None:
    assert client.get("/state.json", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8484", "[::1]:8484"])
def test_our_names_are_answered(client: TestClient, host: str) -> None:
    answer = client.get("/", headers={"Host": host})
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_nothing_can_be_told_to_the_server(client: TestClient, method: str) -> None:
    assert client.request(method, "/state.json").status_code == 405


def test_beyond_loopback_the_token_decides(folder: Path) -> None:
    app = application(Collection(folder), host="0.0.0.0", token=SECRET)
    paths = ["/", "/state.json", "/page.js", f"/?token={SECRET}x", "/?token="]
    with TestClient(app, base_url="http://10.0.0.7:8484", follow_redirects=False) as client:
        assert [client.get(path).status_code for path in paths] == [401] * len(paths)
        assert client.get("/", headers={"Host": "evil.example"}).status_code == 421
        wrong = {"Cookie": "frieze-8484=other"}
        assert client.get("/state.json", headers=wrong).status_code == 401
        answer = client.get(f"http://10.0.0.7:8484//evil.example/?token={SECRET}")
        assert answer.headers["location"] == "/evil.example/"
        client.cookies.clear()
        answer = client.get(f"/?token={SECRET}")
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert client.get("/state.json").status_code == 200
        assert SECRET not in client.get("/state.json").text


def test_nothing_is_written(folder: Path) -> None:
    def contents() -> dict[str, tuple[int, int]]:
        found = {str(p): p.lstat() for p in folder.rglob("*")}
        return {name: (each.st_mtime_ns, each.st_size) for name, each in found.items()}

    before = contents()
    with TestClient(application(Collection(folder)), base_url="http://localhost") as client:
        for about in stores(client).values():
            client.get(f"/stores/{about['key']}/about.json")
            client.get(f"/stores/{about['key']}/0.preview.png")
            client.get(f"/stores/{about['key']}/0_files/0/0_0.png")
    assert contents() == before


def test_stores_of_a_bucket_are_on_view(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store(f"s3://{BUCKET}/shelf/a.zarr", picture(64, 80), (64, 80))  # type: ignore[arg-type]
    for where, name in ((f"s3://{BUCKET}/shelf", "a.zarr"), (f"s3://{BUCKET}/shelf/a.zarr", None)):
        monkeypatch.setattr(entries, "MOST_SECONDS", 60.0)
        client = TestClient(application(Collection(where)), base_url="http://localhost")
        (about,) = stores(client).values()
        assert (about["name"], about["state"]) == (name or "a.zarr", "done")
        np.testing.assert_array_equal(tile(client, about, "7/0_0"), picture(64, 80))
    assert Store.open(f"s3://{BUCKET}/shelf/a.zarr").is_complete
    json.dumps(about)
