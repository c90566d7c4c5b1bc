"""Jobs that outlive their server: none is lost, none is drawn twice, in the order of priorities."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from frieze.renderer.errors import StoreError
from frieze.renderer.monitoring import run_log
from frieze.renderer.server.jobs.job import Job
from frieze.renderer.server.limits import Limits
from frieze.renderer.server.server import Server
from support.drawing import PROMPT
from support.serving import Served, served, settings
from tolerances import AMPLE

SMALL: dict[str, Any] = {"prompt": PROMPT, "size": "64x64"}


def submit(at: Served, **more: Any) -> str:
    answer = httpx2.post(f"{at.api}/jobs", json={**SMALL, **more}, timeout=60)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def job_of(at: Served, job_id: str) -> Job:
    return at.server.queue.jobs[job_id]


def until_ended(at: Served, *jobs: str) -> None:
    until = time.monotonic() + AMPLE
    while not all(job_of(at, each).has_ended for each in jobs):
        assert time.monotonic() < until
        time.sleep(0.02)


def steps(folder: Path) -> list[tuple[int, int]]:
    """Every step that any server drew of a job's pictures."""
    lines = [line for store in sorted(folder.glob("*.zarr")) for line in run_log.read(store)]
    return [(line["stage"], line["step"]) for line in lines if line["event"] == "step"]


def test_what_waits_is_drawn_after_a_restart_and_never_again(tmp_path: Path) -> None:
    about = settings(tmp_path / "served")
    with served(about, draws=False) as at:
        low, high = submit(at, priority=-1), submit(at, priority=2, n=2)
        middle, gone = submit(at), submit(at)
        httpx2.post(f"{at.api}/jobs/{gone}/cancel")
        ahead = httpx2.get(f"{at.api}/jobs/{low}").json()["ahead"]
    assert ahead == 2
    with served(about) as at:
        until_ended(at, low, high, middle)
        ended = {name: job_of(at, name).ended or 0 for name in (low, high, middle)}
        assert sorted(ended, key=ended.__getitem__) == [high, middle, low]
        assert job_of(at, gone).state == "cancelled"
        drawn = {name: steps(tmp_path / "served" / name) for name in ended}
    assert [len(drawn[name]) for name in (low, middle, high)] == [2, 2, 4]
    # As a server leaves it that is killed when all is drawn, and that is not written down yet.
    record = tmp_path / "served" / high / "job.json"
    told = json.loads(record.read_text())
    record.write_text(json.dumps({**told, "state": "in_progress", "ended": None}))
    with served(about) as at:
        until_ended(at, high)
        answer = httpx2.get(f"{at.api}/jobs/{high}/images").json()
        assert len(answer["data"]) == 2
        assert {each.state for each in at.server.queue.jobs.values()} == {"completed", "cancelled"}
    assert drawn == {name: steps(tmp_path / "served" / name) for name in ended}


def test_what_is_half_drawn_goes_on_from_its_state(tmp_path: Path) -> None:
    about = settings(tmp_path / "served")
    with served(about) as at:
        job = submit(at, steps=40)
        until = time.monotonic() + AMPLE
        while (at.server.queue.progress.get(job) or {}).get("step", 0) < 3:
            assert time.monotonic() < until
            time.sleep(0.005)
    with served(about, draws=False) as at:
        assert job_of(at, job).state == "queued"
    before = steps(tmp_path / "served" / job)
    assert 3 <= len(before) < 40
    with served(about) as at:
        until_ended(at, job)
        assert job_of(at, job).state == "completed"
    assert steps(tmp_path / "served" / job) == [(1, step) for step in range(1, 41)]


def test_a_job_at_work_is_cancelled_at_its_next_step(tmp_path: Path) -> None:
    with served(settings(tmp_path / "served")) as at:
        job, after = submit(at, steps=50, size="128x128"), submit(at)
        until = time.monotonic() + AMPLE
        while not (at.server.queue.progress.get(job) or {}).get("step", 0):
            assert time.monotonic() < until
            time.sleep(0.005)
        assert httpx2.delete(f"{at.api}/jobs/{job}").status_code == 200
        until_ended(at, job, after)
        assert job_of(at, job).state == "cancelled"
        assert job_of(at, after).state == "completed"
        answer = httpx2.get(f"{at.api}/jobs/{job}/images")
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "job_cancelled")
    assert len(steps(tmp_path / "served" / job)) < 50


def test_a_full_queue_says_when_to_come_again(tmp_path: Path) -> None:
    limits = Limits(pixels=128 * 128, queue=2)
    with served(settings(tmp_path / "served", limits=limits), draws=False) as at:
        first = submit(at)
        submit(at)
        answer = httpx2.post(f"{at.api}/jobs", json=SMALL)
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
        assert int(answer.headers["retry-after"]) >= 1
        httpx2.post(f"{at.api}/jobs/{first}/cancel")
        submit(at)


def test_a_request_that_waits_too_long_is_told_its_job(tmp_path: Path) -> None:
    limits = Limits(pixels=128 * 128, wait=0.2)
    with served(settings(tmp_path / "served", limits=limits), draws=False) as at:
        answer = httpx2.post(f"{at.api}/images/generations", json=SMALL, timeout=30)
        assert (answer.status_code, answer.headers["x-should-retry"]) == (504, "false")
        (job,) = at.server.queue.jobs
        assert job in answer.json()["error"]["message"]
        assert job_of(at, job).state == "queued"


def test_a_link_in_a_job_s_folder_is_no_picture(tmp_path: Path) -> None:
    with served(settings(tmp_path / "served")) as at:
        job = submit(at)
        until_ended(at, job)
        (file_id,) = job_of(at, job).files
        assert httpx2.get(f"{at.api}/files/{file_id}/content").status_code == 200
        picture = tmp_path / "served" / job / "0.png"
        picture.unlink()
        picture.symlink_to("/etc/hostname")
        assert httpx2.get(f"{at.api}/files/{file_id}/content").status_code == 404
        assert httpx2.get(f"{at.api}/jobs/{job}/images").status_code == 410


def test_records_that_are_damaged_are_told_and_harm_no_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    about = settings(tmp_path / "served")
    with served(about, draws=False) as at:
        good, torn, other = submit(at), submit(at), submit(at)
    root = tmp_path / "served"
    (root / torn / "job.json").write_text("{")
    told = json.loads((root / other / "job.json").read_text())
    (root / other / "job.json").write_text(json.dumps({**told, "id": good}))
    (root / ("job_" + "0" * 32)).mkdir()  # of a process that was killed before its record
    server = Server(about)
    assert set(server.queue.jobs) == {good}
    assert sum(name in caplog.text for name in (torn, other)) == 2
    assert not (root / ("job_" + "0" * 32)).exists()


def test_a_folder_of_something_else_is_no_server_s(tmp_path: Path) -> None:
    (tmp_path / "served").write_text("x")
    with pytest.raises(StoreError, match="use another --folder"):
        Server(settings(tmp_path / "served"))
