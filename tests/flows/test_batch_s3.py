"""A batch in a bucket: killed, gone on with from another process, and never drawn by two."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frieze.renderer import SpecError, batch
from frieze.renderer.batches.items import read
from frieze.renderer.files import lease
from frieze.renderer.files.bucket import Bucket
from frieze.renderer.files.location import S3Path
from frieze.renderer.outputs import exporting
from frieze.renderer.store.store import Store
from support.command_line import MAIN, frieze, refused
from support.drawing import PROMPT
from support.forkserver import Program
from support.s3_server import BUCKET, SECRET, S3Server

SMALL: dict[str, Any] = {"prompt": PROMPT, "size": "64x64", "num_inference_steps": 2}
ITEMS = [
    {**SMALL, "name": "plain", "also": "files/{name}.png"},
    {**SMALL, "name": "seeded", "seed": 3, "out": "files/{name}.tif"},
    {**SMALL, "name": "slow", "num_inference_steps": 10},
]
# A driver that takes its time, and whose lease is over soon after it is killed.
SLOW = """
import time
from frieze.renderer.files import lease as leases
from frieze.renderer.worker.shard import Shard
leases.SECONDS = 4.0
step = Shard.step
def slowly(self, *rest):
    time.sleep(0.4)
    return step(self, *rest)
Shard.step = slowly
"""


@pytest.fixture
def root(s3: S3Server, request: pytest.FixtureRequest) -> S3Path:
    return S3Path(BUCKET, f"batches/{request.node.originalname}")


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same batch, undisturbed and in a folder."""
    folder = tmp_path_factory.mktemp("near")
    assert {result.state for result in batch(ITEMS, out=folder, local=True)} == {"done"}
    return folder


def picture(store: object) -> np.ndarray:
    found = Store.open(str(store))
    return found.read_rows(0, found.layout.height)


def told(lines: Iterator[str], **parts: object) -> dict[str, Any]:
    """The first line that says all that."""
    for line in lines:
        about = json.loads(line)
        if all(about.get(name) == value for name, value in parts.items()):
            return about
    raise AssertionError(f"nobody said {parts}")


@pytest.mark.slow
def test_a_killed_batch_in_a_bucket_goes_on_elsewhere_and_has_one_owner(
    root: S3Path, near: Path, tmp_path: Path
) -> None:
    jobs = tmp_path / "jobs.json"
    jobs.write_text(json.dumps(ITEMS))
    words = ("batch", str(jobs), "--out", str(root), "--local")
    with Program(SLOW + MAIN, *words, "--json") as first:
        told(first.stdout, event="step", item="slow", step=1)
        refused(frieze(*words), "holds a batch already; use --continue")
        refused(frieze(*words, "--continue"), "being drawn by another process", "pid ")
        first.send_signal(signal.SIGKILL)
    tags = Bucket(root / "plain.zarr").tags("")
    shown = frieze(*words, "--continue")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.splitlines() == [str(root / "report.json"), str(root / "contact.png")]
    assert "plain" not in shown.stderr
    assert Bucket(root / "plain.zarr").tags("") == tags
    for store in ("plain.zarr", "files/seeded.zarr", "slow.zarr"):
        np.testing.assert_array_equal(picture(root / store), picture(near / store))
    assert not np.array_equal(picture(root / "plain.zarr"), picture(near / "slow.zarr")), "control"
    bucket = Bucket(root)
    for name in ("files/plain.png", "contact.png"):
        assert bucket.read(name) == (near / name).read_bytes()
    report = json.loads(bucket.read("report.json") or b"")
    expected = json.loads((near / "report.json").read_text())
    for about in (report, expected):
        about["batch"] = about["totals"]["seconds"] = 0
        for item in about["items"]:
            item["seconds"] = 0
    assert report == expected
    assert str(root) not in lease.held()
    assert bucket.read(lease.NAME) is None
    for name in bucket.tags("frieze"):
        assert SECRET.encode() not in (bucket.read(name) or b"")


def test_what_was_done_and_is_gone_is_drawn_again(root: S3Path, near: Path) -> None:
    one = ITEMS[:1]
    assert [r.state for r in batch(one, out=str(root), local=True)] == ["done"]
    with pytest.raises(SpecError, match="holds a batch already"):
        batch(one, out=str(root), local=True)
    assert list(batch(one, out=str(root), local=True, continued=True)) == []
    Bucket(root).remove(["files/plain.png"])
    (again,) = batch(one, out=str(root), local=True, continued=True)
    assert again.outputs == (root / "plain.zarr", root / "files" / "plain.png")
    assert Bucket(root).read("files/plain.png") == (near / "files" / "plain.png").read_bytes()


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"out": "../a.zarr"}, "leaves the output folder"),
        ({"out": "/a.zarr"}, "leaves the output folder"),
        ({"out": "s3://pictures/a.zarr"}, "leaves the output folder"),
        ({"also": "b/../../a.png"}, "leaves the output folder"),
        ({"out": "frieze/run.zarr"}, "the batch's own file"),
        ({"name": "../a"}, "does not work"),
    ],
    ids=range(6),
)
def test_no_name_leaves_the_prefix_and_nothing_is_written(
    root: S3Path, tmp_path: Path, values: dict[str, str], why: str
) -> None:
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text(json.dumps({**SMALL, **values}))
    refused(frieze("batch", str(jobs), "--out", str(root), "--local"), why)
    assert Bucket(S3Path(BUCKET, "batches")).tags(root.name) == {}


def test_every_output_lies_below_the_prefix(root: S3Path) -> None:
    for item in read(ITEMS, root, {"local": True}):
        assert all(path.relative_to(root).parts[0] != ".." for path in item.outputs)
        assert all(root in path.parents for path in item.outputs)


def test_a_place_that_is_no_folder_for_a_batch_is_refused(root: S3Path, near: Path) -> None:
    exporting.export(near / "plain.zarr", root / "a.png", overwrite=False)
    Store.create(root / "b.zarr", Store.open(near / "plain.zarr").layout, fingerprint="", run={})
    with pytest.raises(SpecError, match=r"b\.zarr is no folder for a batch"):
        batch(ITEMS[:1], out=str(root / "b.zarr"), local=True)
    with pytest.raises(SpecError, match="names no place in a bucket"):
        batch(ITEMS[:1], out=f"s3://{BUCKET}", local=True)
