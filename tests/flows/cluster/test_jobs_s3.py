"""A job whose store lies in a bucket: stopped in mid-picture and finished by the next job."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frieze.renderer import batch
from frieze.renderer.errors import StoreError
from frieze.renderer.files.bucket import Bucket
from frieze.renderer.files.location import S3Path
from frieze.renderer.store.store import Store
from support.drawing import PROMPT, draw, grey_levels, pixels
from support.ray_head import ray_head, wait_until
from support.s3_server import BUCKET, SECRET, S3Server
from tolerances import GREY_LEVELS

STEPS = 40


def states(address: str) -> int:
    """Steps that are saved in a store, which may not be there yet."""
    try:
        events = Store.open(address).journal.read()
    except StoreError:
        return 0
    return sum(event["event"] == "state" for event in events)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stopped_jobs_store_in_a_bucket_is_finished_when_the_job_is_sent_again(
    s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    address = f"s3://{BUCKET}/job.zarr"
    words = ("render", PROMPT, "--size", "256x256", "--seed", "7", "--workers", "2")
    words = (*words, "--num-inference-steps", str(STEPS), "--out", address)
    # The head's processes reach the bucket as its nodes would: by their own environment.
    with ray_head(RAY_JOB_STOP_WAIT_TIME_S="60", **s3.variables) as head:
        code, _, err = head.submit("--submission-id", "first", "--no-wait", "--", *words)
        assert code == 0, err
        wait_until(lambda: states(address) > 1 or head.job("first")["end_time"])
        head.run("ray", "job", "stop", "--address", head.url, "first")
        assert head.ended("first")["status"] == "STOPPED", head.log("first")
        saved = states(address)
        assert 1 < saved < STEPS, head.log("first")
        code, out, err = head.submit("--", *words)
        assert code == 0, out + err
        assert f"step {STEPS}/{STEPS}" in out
        assert not re.search(r"\bstep 1/", out)
        assert out.endswith(f"{address}\n")
    path = tmp_path_factory.mktemp("near") / "a.zarr"
    draw(path, num_inference_steps=STEPS, workers=2)
    store = Store.open(address)
    found, whole = store.read_rows(0, store.layout.height), pixels(path)
    assert grey_levels(found, whole) <= GREY_LEVELS
    assert grey_levels(found, whole[::-1]) > GREY_LEVELS


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stopped_batch_in_a_bucket_goes_on_when_the_job_is_sent_again(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = S3Path(BUCKET, "sent")
    small = {"prompt": PROMPT, "size": "64x64", "num_inference_steps": 2, "init": "in/a.png"}
    items = [
        {**small, "name": "first", "also": "{name}.png"},
        {**small, "name": "long", "size": "256x256", "num_inference_steps": STEPS, "strength": 1.0},
    ]
    # The variables go with the job, for the nodes of this head know none.
    variables = [f"{name}={value}" for name, value in s3.variables.items()]
    with ray_head(RAY_JOB_STOP_WAIT_TIME_S="60") as head:
        (head.folder / "in").mkdir()
        Image.new("RGB", (256, 256), "darkred").save(head.folder / "in" / "a.png")
        (head.folder / "jobs.json").write_text(json.dumps(items))
        words = [word for pair in variables for word in ("--env", pair)]
        words += ["--", "batch", "jobs.json", "--out", str(root), "--workers", "2"]
        code, _, err = head.submit("--submission-id", "first", "--no-wait", *words)
        assert code == 0, err
        wait_until(lambda: states(f"{root}/long.zarr") > 1 or head.job("first")["end_time"])
        head.run("ray", "job", "stop", "--address", head.url, "first")
        assert head.ended("first")["status"] == "STOPPED", head.log("first")
        assert 1 < states(f"{root}/long.zarr") < STEPS, head.log("first")
        drawn = Bucket(root / "first.zarr").tags("")
        assert drawn
        code, out, err = head.submit(*words)
        assert code == 0, out + err
        assert out.endswith(f"{root}/report.json\n{root}/contact.png\n")
        assert SECRET not in head.log("first") + out + err
        monkeypatch.chdir(head.folder)
        near = {r.name: r.path for r in batch(items, out=tmp_path, local=True)}
    assert Bucket(root / "first.zarr").tags("") == drawn
    assert Bucket(root).read("first.png") == (tmp_path / "first.png").read_bytes()
    for name, path in near.items():
        store = Store.open(root / f"{name}.zarr")
        assert isinstance(path, Path)
        found = store.read_rows(0, store.layout.height)
        assert grey_levels(found, pixels(path)) <= GREY_LEVELS
        assert not np.array_equal(found, pixels(path)[::-1]), "control"
    report = json.loads(Bucket(root).read("report.json") or b"")
    assert report["totals"]["done"] == len(items)
