"""An address is a path, or a place in a bucket, or one clear error."""

from __future__ import annotations

import json
import pickle
from pathlib import Path, PurePosixPath

import pytest

from frieze.renderer.errors import ExportError, StoreError
from frieze.renderer.files.location import S3Path, location
from frieze.renderer.outputs import targets
from frieze.renderer.store.layout import StoreLayout
from frieze.renderer.store.store import Store
from support.command_line import frieze, refused
from support.s3_server import BUCKET, S3Server

LAYOUT = StoreLayout(64, 64, (32, 32))


@pytest.mark.parametrize(
    "address", ["s3://moon/a/b.zarr", "s3:/moon/a/b.zarr", "S3://moon/a/b.zarr/"]
)
def test_an_address_in_a_bucket_keeps_its_parts(address: str) -> None:
    found = location(address, StoreError)
    assert found == S3Path("moon", "a/b.zarr")
    assert str(found) == "s3://moon/a/b.zarr"
    assert (found.name, found.stem, found.suffix) == ("b.zarr", "b", ".zarr")
    assert str(found / "0") == "s3://moon/a/b.zarr/0"
    assert location(found, StoreError) is found
    assert targets.store_of("s3://moon/a/b.tif") == found
    assert pickle.loads(pickle.dumps(found)) == found


def test_anything_else_is_a_path() -> None:
    for text in ("a.zarr", "/moon/a.zarr", "s3/moon/a.zarr", "a:b.zarr", "../a.zarr"):
        assert location(text, StoreError) == Path(text)
    assert targets.store_of("a.tif") == Path("a.zarr").absolute()


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("s3://", "names no place"),
        ("s3://moon", "names no place"),
        ("s3://moon/", "names no place"),
        ("s3://../a.zarr", "names no place"),
        ("s3:///a.zarr", "s3://"),
        ("s3://moon/../other/a.zarr", "dotted"),
        ("s3://moon//a.zarr", "empty"),
        ("s3://moon/./a.zarr", "dotted"),
        ("s3://moon/a\n.zarr", "unprintable"),
        ("gs://moon/a.zarr", "no addresses of gs://"),
        ("https://moon/a.zarr", "no addresses of https://"),
        ("file:///moon/a.zarr", "no addresses of file://"),
    ],
)
def test_what_leads_nowhere_or_elsewhere_is_refused(address: str, why: str) -> None:
    for act in (
        lambda: location(address, StoreError),
        lambda: Store.open(address),
        lambda: Store.check(address, LAYOUT),
    ):
        with pytest.raises(StoreError, match=why):
            act()
    with pytest.raises(ExportError, match=why):
        targets.targets(address, (), overwrite=False)


def test_an_address_knows_what_it_lies_in() -> None:
    found = S3Path("moon", "a/b/c.zarr")
    assert found.parents == (S3Path("moon", "a/b"), S3Path("moon", "a"))
    assert found.relative_to(S3Path("moon", "a")) == PurePosixPath("b/c.zarr")
    for other in (S3Path("sun", "a"), S3Path("moon", "b")):
        with pytest.raises(ValueError, match=r"a/b/c\.zarr"):
            found.relative_to(other)


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_a_file_in_a_bucket_is_made_from_the_store_beside_it(s3: S3Server, suffix: str) -> None:
    main = S3Path(BUCKET, f"files/a{suffix}")
    made = targets.targets(str(main), (), overwrite=False)
    assert (made.store, made.main) == (main.with_suffix(".zarr"), main)
    assert (made.live, made.exports) == (None, (main,))
    record = json.loads(json.dumps(made.record()))
    assert targets.resumed(made.store, record, (), overwrite=False) == made


def test_targets_in_a_bucket_survive_the_record(tmp_path: Path) -> None:
    made = targets.targets("s3://moon/a.zarr", [tmp_path / "a.tif"], overwrite=False)
    assert made.store == made.main == S3Path("moon", "a.zarr")
    assert made.all == (made.store, tmp_path / "a.tif")
    record = json.loads(json.dumps(made.record()))
    asked = targets.resumed(made.store, record, [tmp_path / "a.tif"], overwrite=False)
    assert asked == made
    unasked = targets.resumed(made.store, record, (), overwrite=False)
    assert (unasked.store, unasked.exports) == (made.store, ())
    assert str(tmp_path / "a.tif") in unasked.left_out[0]


@pytest.mark.parametrize(
    ("address", "variables", "why"),
    [
        ("s3://nosuchbucket/a.zarr", {}, "no bucket 'nosuchbucket' at http://127.0.0.1:"),
        (
            f"s3://{BUCKET}/a.zarr",
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
            "http://127.0.0.1:1 cannot be reached; check AWS_ENDPOINT_URL",
        ),
        (
            f"s3://{BUCKET}/a.zarr",
            {
                "AWS_ACCESS_KEY_ID": "",
                "AWS_SECRET_ACCESS_KEY": "",
                "AWS_METADATA_ENDPOINT": "http://127.0.0.1:1",
            },
            "no credentials; set AWS_ACCESS_KEY_ID",
        ),
        (f"s3://{BUCKET}/a.zarr", {"AWS_ACCESS_KEY_ID": ""}, "check the AWS_* settings"),
        (f"s3://{BUCKET}/a.zarr", {"AWS_ENDPOINT_URL": "nonsense"}, "AWS_ENDPOINT_URL"),
    ],
    ids=["bucket", "server", "credentials", "half", "endpoint"],
)
def test_a_bucket_that_cannot_be_had_is_one_line(
    s3: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    variables: dict[str, str],
    why: str,
) -> None:
    secret = s3.variables["AWS_SECRET_ACCESS_KEY"]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
        if not value:
            monkeypatch.delenv(name)
    for act in (lambda: Store.check(address, LAYOUT), lambda: Store.open(address)):
        with pytest.raises(StoreError) as caught:
            act()
        assert why in str(caught.value)
        assert "\n" not in str(caught.value)
        assert secret not in str(caught.value)


def test_no_permission_is_one_line(s3: S3Server) -> None:
    with s3.strict():
        for act in (
            lambda: Store.check(f"s3://{BUCKET}/a.zarr", LAYOUT),
            lambda: Store.open(f"s3://{BUCKET}/a.zarr"),
            lambda: targets.targets("a.zarr", [f"s3://{BUCKET}/a.tif"], overwrite=False),
            lambda: targets.targets("a.zarr", [f"s3://{BUCKET}/a.tif"], overwrite=True),
        ):
            with pytest.raises(StoreError, match=r"no permission \(\w+\); check") as caught:
                act()
            assert "\n" not in str(caught.value)
            assert s3.variables["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)
    assert Store.check(f"s3://{BUCKET}/a.zarr", LAYOUT), "control"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["render", "x", "--out", "gs://moon/a.zarr"], "no addresses of gs://"),
        (["render", "x", "--out", "s3://moon/../a.zarr"], "dotted"),
        (["render", "x", "--out", f"s3://{BUCKET}/a.gif"], "no format '.gif'"),
        (["render", "x", "--out", "s3://nosuchbucket/a.zarr"], "no bucket"),
        (["resume", f"s3://{BUCKET}/absent.zarr"], "no store at s3://"),
        (["export", f"s3://{BUCKET}/absent.zarr", "a.tif"], "no store at s3://"),
        (["export", "a.zarr", f"s3://{BUCKET}/a.tif"], "no store at"),
        (["export", "a.zarr", "s3://nosuchbucket/a.tif"], "no bucket 'nosuchbucket'"),
    ],
)
def test_the_command_line_says_it_in_one_line_and_writes_nothing(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(frieze(*words), why)
    assert not list(tmp_path.iterdir())
