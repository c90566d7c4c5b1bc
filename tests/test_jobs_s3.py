"""A job whose store lies in a bucket: stopped in mid-picture and finished by the next job."""

from __future__ import annotations

import re

import pytest

from drawing import PROMPT, draw, grey_levels, pixels
from frieze.renderer.errors import StoreError
from frieze.renderer.store import Store
from ray_head import ray_head, wait_until
from s3_server import BUCKET, S3Server
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
