"""Exports into a bucket are those on disk, appear whole or not at all, and replace only our own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
import zarr

from contracts.export import NAMES, content, draw, make_store, picture, places, takes
from frieze.renderer import plugins
from frieze.renderer.errors import ExportError, StoreError
from frieze.renderer.files import lease as leases
from frieze.renderer.files.bucket import Bucket
from frieze.renderer.files.location import S3Path
from frieze.renderer.journal.bucket_journal import BucketJournal
from frieze.renderer.outputs import exporting, upload
from support.command_line import frieze, refused
from support.forkserver import Program
from support.s3_server import BUCKET, S3Server
from tolerances import AMPLE

FOLDERS = {"deep_zoom": "picture", "frames": "clip", "iiif": "picture", "ome_zarr": "picture"}


@pytest.fixture
def place(s3: S3Server, request: pytest.FixtureRequest) -> S3Path:
    """A prefix of each test's own."""
    return S3Path(BUCKET, f"uploads/{request.node.name.replace('[', '-').strip(']')}")


def objects(where: S3Path) -> dict[str, bytes]:
    """Everything below an address."""
    bucket = Bucket(where)
    return {name: bucket.read(name) or b"" for name in bucket.tags("")}


def files(path: Path) -> dict[str, bytes]:
    """A file, or all files of a folder, by their names from its parent on."""
    found = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    return {file.relative_to(path.parent).as_posix(): file.read_bytes() for file in found}


def opened(where: S3Path) -> zarr.Group:
    """A picture in the bucket, by others' code."""
    options = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]}
    return zarr.open_group(str(where), mode="r", storage_options=options)


def named(export: str, place: Path | S3Path) -> Path | S3Path:
    return place / f"out{plugins.load('exports', export).suffixes[0]}"


@pytest.mark.parametrize("name", NAMES)
def test_an_export_in_a_bucket_is_the_one_on_disk_and_leaves_nothing_beside_it(
    tmp_path: Path, place: S3Path, name: str
) -> None:
    kind = "picture" if takes(plugins.load("exports", name), "picture") else "clip"
    store = make_store(tmp_path / "a.zarr", content(kind, 96, 80), (32, 32))
    near = exporting.export(store.path, str(named(name, tmp_path)), overwrite=False)
    far = exporting.export(store.path, str(named(name, place)), overwrite=False)
    assert far == named(name, place)
    assert isinstance(near, Path)
    assert objects(place) == files(near)
    assert str(place / near.name) not in leases.held()


@pytest.mark.parametrize("name", ["png", *FOLDERS])
def test_an_export_in_a_bucket_is_replaced_only_when_told(
    tmp_path: Path, place: S3Path, name: str
) -> None:
    kind, where = FOLDERS.get(name, "picture"), str(named(name, place))
    pixels = content(kind, 96, 80)
    first = make_store(tmp_path / "a.zarr", pixels, (32, 32))
    # Of a clip fewer frames, so that one left from the first would show.
    second = make_store(tmp_path / "b.zarr", pixels[:2] if kind == "clip" else pixels[::-1])
    exporting.export(first.path, where, overwrite=False)
    before = objects(place)
    with pytest.raises(ExportError, match="already there; use --overwrite"):
        exporting.export(second.path, where, overwrite=False)
    assert objects(place) == before
    exporting.export(second.path, where, overwrite=True)
    near = exporting.export(second.path, str(named(name, tmp_path)), overwrite=False)
    assert isinstance(near, Path)
    assert objects(place) == files(near)
    assert objects(place) != before


@pytest.mark.parametrize("name", FOLDERS)
def test_a_strangers_objects_stay_whatever_is_told(
    tmp_path: Path, place: S3Path, name: str
) -> None:
    store = make_store(tmp_path / "a.zarr", content(FOLDERS[name], 64, 64), (32, 32))
    where = named(name, place)
    assert isinstance(where, S3Path)
    Bucket(where).write("thesis.txt", b"years")
    with pytest.raises(ExportError, match="did not make"):
        exporting.export(store.path, where, overwrite=True)
    assert objects(place) == {f"{where.name}/thesis.txt": b"years"}


def test_a_working_store_is_no_export(tmp_path: Path, place: S3Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32))
    other = make_store(place / "b.zarr", picture(64, 64), (32, 32))
    with pytest.raises(ExportError, match="did not make"):
        exporting.export(store.path, str(other.path), overwrite=True)
    with pytest.raises(ExportError, match="in the store itself"):
        exporting.export(other.path, f"{other.path}/deep/b.png", overwrite=True)
    assert list(other.in_order())


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_half_sent_is_taken_for_nothing_and_replaced(
    tmp_path: Path, place: S3Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, where = plugins.load("exports", name), named(name, place)
    assert isinstance(where, S3Path)
    store = make_store(tmp_path / "a.zarr", content(FOLDERS[name], 64, 64), (32, 32))
    near = exporting.export(store.path, str(named(name, tmp_path)), overwrite=False)
    send = Bucket.send

    def breaks(self: Bucket, file: str, source: Path) -> None:
        if file == kind.last:
            raise KeyboardInterrupt
        send(self, file, source)

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "send", breaks)
        with pytest.raises(KeyboardInterrupt):
            exporting.export(store.path, where, overwrite=False)
        assert objects(place) == {}
        # As a process that is killed leaves it: no time to tidy up, and a lease.
        patch.setattr(leases, "clear", lambda bucket: None)
        patch.setattr(leases, "release", lambda bucket: None)
        with pytest.raises(KeyboardInterrupt):
            exporting.export(store.path, where, overwrite=False)
    assert len(objects(where)) > 1
    assert kind.last not in objects(where)
    if name == "ome_zarr":
        with pytest.raises(FileNotFoundError):
            opened(where)
    exporting.export(store.path, where, overwrite=False)
    assert isinstance(near, Path)
    assert objects(place) == files(near)
    assert name != "ome_zarr" or "0" in opened(where), "control"


@pytest.mark.parametrize("size", [1000, 6 * 2**20], ids=["whole", "in parts"])
def test_a_file_that_breaks_or_finds_another_there_leaves_it_alone(
    tmp_path: Path, place: S3Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "PART_BYTES", 5 * 2**20)
    mine, where = tmp_path / "mine.tif", place / "a.tif"
    mine.write_bytes(os.urandom(size))
    Bucket(place).write("a.tif", b"another's")
    with pytest.raises(ExportError, match="appeared meanwhile"):
        upload.send_file(mine, where, overwrite=False)
    assert objects(place) == {"a.tif": b"another's"}
    upload.send_file(mine, where, overwrite=True)
    assert objects(place) == {"a.tif": mine.read_bytes()}
    upload.send_file(mine, place / "b.tif", overwrite=False)
    assert objects(place)["b.tif"] == mine.read_bytes()


SEND = """
import sys
from pathlib import Path
from frieze.renderer.outputs import upload as uploads
from frieze.renderer.files.location import S3Path
try:
    uploads.send_file(Path(sys.argv[1]), S3Path(*sys.argv[2:]), overwrite=False)
except Exception as error:
    print(error)
"""


def test_of_two_that_send_to_one_name_the_second_is_refused(
    tmp_path: Path, place: S3Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "PART_BYTES", 5 * 2**20)
    first, second, where = tmp_path / "first.tif", tmp_path / "second.tif", place / "a.tif"
    first.write_bytes(os.urandom(6 * 2**20))
    second.write_bytes(os.urandom(1000))
    put, told = obstore.put, list[str]()

    def late(store: Any, key: str, data: Any, **options: Any) -> Any:
        """Both of the others come when the first has been found free to go."""
        if key != where.key or told:
            return put(store, key, data, **options)
        with pytest.raises(ExportError, match=r"a\.tif is being written by this"):
            upload.send_file(second, where, overwrite=False)
        (lease,) = (lease for name, lease in leases.held().items() if name.endswith(".sending"))
        with Program(SEND, str(second), where.bucket, where.key) as other:
            while other.poll() is None:
                lease.renew()  # as a thread does, less often
                time.sleep(0.1)
            told.append(other.stdout.read())
        return put(store, key, data, **options)

    with monkeypatch.context() as patch:
        patch.setattr(obstore, "put", late)
        upload.send_file(first, where, overwrite=False)
    assert "a.tif is being written by another process" in told[0]
    assert objects(place) == {"a.tif": first.read_bytes()}
    upload.send_file(second, place / "b.tif", overwrite=False)
    assert objects(place)["b.tif"] == second.read_bytes(), "control: nobody is at it"


def test_a_file_that_is_cut_off_on_its_way_is_not_there(
    tmp_path: Path, place: S3Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "PART_BYTES", 5 * 2**20)
    mine, put = tmp_path / "mine.tif", obstore.put
    mine.write_bytes(os.urandom(11 * 2**20))

    def first_alone(pieces: Iterator[bytes]) -> Iterator[bytes]:
        yield next(pieces)
        raise StoreError("the connection broke")

    def cut(store: Any, key: str, data: Any, **options: Any) -> Any:
        is_file = key == (place / "a.tif").key
        return put(store, key, first_alone(data) if is_file else data, **options)

    with monkeypatch.context() as patch:
        patch.setattr(obstore, "put", cut)
        with pytest.raises(StoreError, match="broke"):
            upload.send_file(mine, place / "a.tif", overwrite=False)
    assert objects(place) == {}
    upload.send_file(mine, place / "a.tif", overwrite=False)
    assert objects(place) == {"a.tif": mine.read_bytes()}, "control"


def test_an_export_into_a_bucket_follows_a_store_that_is_being_drawn(
    tmp_path: Path, place: S3Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BucketJournal, "pace", 0.02)
    pixels_HWC = picture(96, 80)
    store = make_store(place / "a.zarr", pixels_HWC, (32, 80), finish=False)
    made: list[object] = []

    def follow() -> None:
        made.append(
            exporting.export(store.path, place / "out" / "a.png", overwrite=False, follow=True)
        )

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    before: set[str] = set()
    for frame, row in places(store.layout, 32):
        before |= objects(place / "out").keys()
        draw(store, pixels_HWC, row, 32, frame)
    store.finish()
    thread.join(AMPLE)
    # While it is checked whether one may send there, a lease is there for a moment.
    assert before <= {f".a.png.sending/{leases.NAME}"}
    assert made == [place / "out" / "a.png"]
    near = exporting.export(store.path, tmp_path / "a.png", overwrite=False)
    assert isinstance(near, Path)
    assert objects(place / "out") == files(near)


def test_the_command_prints_the_address_and_refuses_before_any_work(
    tmp_path: Path, place: S3Path
) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32))
    shown = frieze("export", str(store.path), str(place / "a.png"))
    assert (shown.exit_code, shown.stdout) == (0, f"{place / 'a.png'}\n"), shown.output
    for address, parts in (
        (str(place / "a.png"), ("already there", "--overwrite")),
        ("s3://nosuchbucket/a.png", ("no bucket 'nosuchbucket'",)),
        (str(place / "a.bmp"), ("no format '.bmp'", ".png")),
        (str(place / "a.mp4"), ("holds a picture",)),
    ):
        refused(frieze("export", str(store.path), address), *parts)
    assert objects(place).keys() == {"a.png"}


def test_a_render_sends_its_files_to_a_bucket_and_is_refused_where_one_is_there(
    tmp_path: Path, place: S3Path
) -> None:
    words = ("render", "a sun", "--size", "64x64", "--num-inference-steps", "1", "--local")
    out, also = str(place / "a.tif"), str(place / "more" / "a.png")
    shown = frieze(*words, "--out", out, "--also", also, "--json")
    assert shown.exit_code == 0, shown.output
    assert f'"path": "{out}"' in shown.stdout.splitlines()[-1]
    store = str(place / "a.zarr")
    for address in (out, also):
        near = exporting.export(store, tmp_path / Path(address).name, overwrite=False)
        assert isinstance(near, Path)
        assert near.read_bytes() == Bucket(place).read(address.removeprefix(f"{place}/"))
    refused(frieze(*words, "--out", str(tmp_path / "b.zarr"), "--also", also), "already there")
    assert not (tmp_path / "b.zarr").exists()
    Bucket(place).remove(["more/a.png"])
    shown = frieze("resume", store)
    assert shown.exit_code == 0, shown.output
    assert also in shown.stdout
    found = Bucket(place).read("more/a.png")
    assert found == (tmp_path / "a.png").read_bytes()
    assert np.frombuffer(found or b"", np.uint8).any()
