"""A store in a bucket gives back what it was given, to Frieze and to others, or says why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from contracts.export import NAMES, RUN, content, draw, make_store, picture, places, takes
from frieze.renderer import plugins
from frieze.renderer.codecs.output import Output
from frieze.renderer.errors import StoreError
from frieze.renderer.files import location
from frieze.renderer.journal.bucket_journal import BucketJournal
from frieze.renderer.store import directory
from frieze.renderer.store.layout import LatentArray, StoreLayout, halve
from frieze.renderer.store.store import Store
from support.s3_server import BUCKET, S3Server

LATENTS = (LatentArray("0", (2, 4, 1, 24, 10), 8), LatentArray("1", (2, 4, 1, 50, 20), 16))


@pytest.fixture
def address(s3: S3Server, request: pytest.FixtureRequest) -> str:
    """A new address for each test."""
    return f"s3://{BUCKET}/{request.node.name.replace('[', '-').strip(']')}/a.zarr"


def test_pixels_pyramid_and_latents_come_back_bit_for_bit(address: str) -> None:
    pixels_HWC = picture(1000, 530)
    store = make_store(address, pixels_HWC, (64, 530), latents=LATENTS)
    bits = np.random.default_rng(0).integers(0, 2**32, (4, 1, 50, 20), dtype=np.uint32)
    latents_CTHW = bits.view(np.float32)
    for start, stop in ((0, 16), (16, 48), (48, 50)):
        store.save_latents(1, 1, slice(start, stop), latents_CTHW[:, :, start:stop])
    again = Store.open(address)
    assert str(again.path) == address
    found = again.load_latents(1, 1, slice(7, 33))
    np.testing.assert_array_equal(found.view(np.uint32), bits[:, :, 7:33])
    np.testing.assert_array_equal(np.concatenate([p for _, p in again.in_order(100)]), pixels_HWC)
    for level in again.layout.levels:
        np.testing.assert_array_equal(again.read_rows(0, level.height, level.index), pixels_HWC)
        pixels_HWC = halve(pixels_HWC)


def test_other_libraries_open_the_picture(s3: S3Server, address: str) -> None:
    import tensorstore

    pixels_HWC = picture(600, 500)
    store = make_store(address, pixels_HWC, (256, 256))
    pixels_CHW = np.moveaxis(pixels_HWC, -1, 0)
    options = {"endpoint_url": s3.url}
    group = zarr.open_group(address, mode="r", storage_options=options)
    np.testing.assert_array_equal(group["0"][:], pixels_CHW)
    assert group.attrs["frieze"]["picture"]["seed"] == 7
    kvstore = {
        "driver": "s3",
        "bucket": BUCKET,
        "path": f"{store.path.key}/0/",
        "endpoint": s3.url,
        "aws_region": "us-east-1",
        "aws_credentials": {"type": "environment"},
    }
    found = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}).result()
    np.testing.assert_array_equal(found.read().result(), pixels_CHW)


@pytest.mark.parametrize("name", NAMES)
def test_exports_are_those_of_the_same_store_on_disk(
    address: str, tmp_path: Path, name: str
) -> None:
    export = plugins.load("exports", name)
    kind = "picture" if takes(export, "picture") else "clip"
    pixels = content(kind, 96, 80)
    made = []
    for folder, where in (("near", tmp_path / "a.zarr"), ("far", address)):
        (tmp_path / folder).mkdir()
        store = make_store(where, pixels, (32, 32))
        out = export.export(Output.of(store.path, tmp_path / folder / f"out{export.suffixes[0]}"))
        files = [out] if out.is_file() else sorted(f for f in out.rglob("*") if f.is_file())
        made.append([file.read_bytes() for file in files])
    assert made[0] == made[1]
    assert made[0]


def test_an_export_follows_a_store_that_is_being_drawn(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BucketJournal, "pace", 0.02)
    pixels_HWC = picture(96, 80)
    drawn = make_store(address, pixels_HWC, (32, 80), finish=False)
    reader = Store.open(address).in_order(32, wait=True, poll=0.02)
    for frame, row in places(drawn.layout, 32):
        draw(drawn, pixels_HWC, row, 32, frame)
        top, rows_HWC = next(reader)
        assert top == row
        np.testing.assert_array_equal(rows_HWC, pixels_HWC[row : row + 32])
    drawn.finish()
    with pytest.raises(StopIteration):
        next(reader)


def test_a_follower_gives_up_when_the_driver_is_done_for(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BucketJournal, "pace", 0.02)
    store = make_store(address, picture(64, 64), (32, 32), finish=False)
    store.journal.release()
    with pytest.raises(StoreError, match="not finished"):
        list(Store.open(address).in_order(wait=True, poll=0.01, patience=0.05))


def test_a_lost_or_torn_object_is_an_error_not_black(address: str) -> None:
    store = make_store(address, picture(64, 64), (32, 32), latents=LATENTS)
    shard = "0/c/0/1/0"
    whole = store.directory.read(shard)
    assert whole
    for damaged in (whole[:-5], whole[:9] + b"?" + whole[10:], b""):
        store.directory.write(shard, damaged)
        with pytest.raises(StoreError, match="damaged"):
            list(store.in_order())
    store.directory.remove([shard])
    with pytest.raises(StoreError, match=rf"{address}/{shard} is missing"):
        list(store.in_order())
    assert store.arrays.pixels[0][:, 32:, :32].max() == 0, "control: zarr itself says nothing"
    with pytest.raises(StoreError, match="never written"):
        store.load_latents(0, 1, slice(0, 8))


@pytest.mark.parametrize(
    "data", [b'{"format": ', b'{"format": "other"}', b"\x80\x04cos\nsystem\n."]
)
def test_a_damaged_store_is_one_clear_error(address: str, data: bytes) -> None:
    store = make_store(address, picture(64, 64), (32, 32))
    store.directory.write("frieze/run.json", data)
    with pytest.raises(StoreError, match="is damaged") as caught:
        Store.open(address)
    assert "\n" not in str(caught.value)


def test_a_store_is_replaced_only_when_told_and_a_strangers_objects_never(address: str) -> None:
    layout = StoreLayout(64, 64, (32, 32))
    store = make_store(address, picture(64, 64), (32, 32))
    with pytest.raises(StoreError, match="already there"):
        Store.check(address, layout)
    assert Store.open(address).is_complete
    Store.create(address, layout, fingerprint="new", run=RUN, overwrite=True)
    assert Store.open(address).done() == frozenset()
    assert not [name for name in store.directory.tags("") if "/c/" in name]
    store.directory.write("thesis.txt", b"years")
    with pytest.raises(StoreError, match="did not make"):
        Store.check(address, layout, overwrite=True)
    assert store.directory.read("thesis.txt") == b"years"


def test_looking_leaves_nothing_and_what_is_half_made_may_go(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = StoreLayout(64, 64, (32, 32))
    where = Store.check(address, layout)
    home = directory.store_directory(where)
    assert home.tags("") == {}
    with pytest.raises(StoreError, match="no store at"):
        Store.open(address)

    def fail(*arguments: object) -> None:
        raise StoreError("the connection broke")

    with monkeypatch.context() as patch:
        patch.setattr("frieze.renderer.store.store.write_documents", fail)
        with pytest.raises(StoreError, match="broke"):
            Store.create(address, layout, fingerprint="", run=RUN)
    assert home.tags("").keys() == {"frieze/lease.json"}
    home.write("0/zarr.json", b"{}")
    home.write("frieze/latents/zarr.json", b"{}")
    with pytest.raises(StoreError, match="half made"):
        Store.open(address)
    Store.create(address, layout, fingerprint="", run=RUN)
    assert Store.open(address).done() == frozenset()


def test_what_is_written_down_holds_no_credentials(s3: S3Server, address: str) -> None:
    carried = location.carried(location.location(address, StoreError))
    assert dict(carried.access) == s3.variables
    assert s3.variables["AWS_SECRET_ACCESS_KEY"] not in repr(carried) + str(carried)
    store = make_store(carried, picture(64, 64), (32, 32), latents=LATENTS)
    names = store.directory.tags("")
    assert "frieze/run.json" in names
    for name in names:
        data = store.directory.read(name)
        assert data is not None
        assert s3.variables["AWS_SECRET_ACCESS_KEY"].encode() not in data


def test_a_worker_reaches_the_bucket_as_its_driver_does(
    s3: S3Server, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(address, picture(64, 64), (32, 32))
    carried = location.carried(store.path)
    for name in s3.variables:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of this host, and of no use with the driver's key")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    assert Store.open(carried).is_complete
    with pytest.raises(StoreError, match="s3://"):
        Store.open(address)


def test_a_profile_of_the_aws_tools_is_used(
    s3: S3Server, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(address, picture(64, 64), (32, 32))
    keys = "aws_access_key_id = tester\naws_secret_access_key = x\n"
    (tmp_path / "credentials").write_text(f"[studio]\n{keys}")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "studio")
    assert Store.open(address).is_complete
    monkeypatch.setenv("AWS_PROFILE", "stranger")
    with pytest.raises(StoreError, match="AWS_PROFILE 'stranger'"):
        Store.open(address)
