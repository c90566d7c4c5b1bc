"""What is kept of jobs that have ended, and what is never deleted."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from contracts.export import make_store, picture
from frieze.renderer.errors import SpecError, StoreError
from frieze.renderer.server.jobs.job import Job, JobFolder, new_id
from frieze.renderer.server.jobs.job_queue import JobQueue
from frieze.renderer.server.jobs.retention import Retention, Tidying

DAY = 86400.0


def ended(queue: JobQueue, at: float) -> Job:
    """A job with a picture that ended then, submitted and written."""
    job = Job(
        id=new_id(),
        kind="image_generation",
        model="demo",
        owner="",
        created=at,
        priority=0,
        items=[{"prompt": "a sun"}],
        told={"output_format": "png"},
    )
    folder = queue.folder.make(job.id)
    (folder / "0.png").write_bytes(b"png")
    queue.submit(job)
    with queue.changed:
        queue.take(job)
    queue.end(job, "completed")
    job.ended = at
    queue.folder.write(job)
    return job


@pytest.fixture
def queue(tmp_path: Path) -> JobQueue:
    (tmp_path / "served").mkdir()
    return JobQueue(JobFolder(tmp_path / "served"), most=9)


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "d", "1.5d", "7D", "7y", "0d", "1e3", "9" * 8, "٣"]
)
def test_what_keeps_nothing_known_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="--keep"):
        Retention.of(text)


def test_the_oldest_go_by_age_or_by_number(queue: JobQueue) -> None:
    jobs = [ended(queue, DAY * day) for day in (3, 1, 2)]
    waits = jobs[0].model_copy(update={"state": "queued", "ended": None, "id": new_id()})
    kept = {text: Retention.of(text).over([*jobs, waits], 4 * DAY) for text in ("2d", "1w", "1")}
    assert [job.ended for job in kept["2d"]] == [DAY]  # two days and no more: it stays
    assert kept["1w"] == []
    assert [job.ended for job in kept["1"]] == [DAY, 2 * DAY]
    # A client may still fetch what ended just now.
    assert [job.ended for job in Retention.of("1").over(jobs, 2 * DAY + 9)] == [DAY]


def test_only_what_the_server_wrote_is_deleted(
    queue: JobQueue, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain, noted, linked = (ended(queue, day * DAY) for day in (1, 2, 3))
    root = queue.folder.root
    make_store(root / plain.id / "0.zarr", picture(64, 64), (64, 64))
    (root / noted.id / "notes.txt").write_text("mine")
    make_store(root / noted.id / "0.zarr", picture(64, 64), (64, 64))
    (root / noted.id / "0.zarr" / "mine.txt").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_text("mine")
    (root / linked.id / "1.zarr").symlink_to(tmp_path / "elsewhere")
    (root / "mine").mkdir()
    with caplog.at_level(logging.WARNING):
        Tidying(queue, Retention.of("1d")).look()
    assert queue.jobs == {}
    assert sorted(path.name for path in root.iterdir()) == sorted(["mine", noted.id, linked.id])
    assert sorted(p.name for p in (root / noted.id).iterdir()) == ["0.zarr", "notes.txt"]
    assert (root / noted.id / "0.zarr" / "mine.txt").read_text() == "mine"
    assert (tmp_path / "elsewhere" / "kept").read_text() == "mine"
    assert "deleted, as --keep 1d says" in caplog.text
    assert all(each in caplog.text for each in (plain.id, "notes.txt stays in", "1.zarr stays"))
    later = JobQueue(queue.folder, most=9)
    assert sorted("notes.txt" in str(fault) for fault in later.load()) == [False, True]
    assert later.jobs == {}


def test_a_disk_that_deletes_nothing_ends_no_server(
    queue: JobQueue, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = ended(queue, DAY)
    record = queue.folder.of(job) / "job.json"
    record.unlink()
    record.mkdir()  # of which unlink(2) says what it says of a disk that is read only: an error
    with caplog.at_level(logging.WARNING):
        Tidying(queue, Retention.of("1d")).look()
    assert f"{job.id} stays until" in caplog.text
    assert str(tmp_path) not in caplog.text
    assert "deleted" not in caplog.text


def test_a_kill_between_leaves_no_half_of_a_job(queue: JobQueue) -> None:
    job, other = ended(queue, DAY), ended(queue, DAY)
    (queue.folder.of(job) / "job.json").unlink()  # killed after its first deed
    (queue.folder.of(job) / f".0.zarr.{'0' * 8}.part").mkdir()
    later = JobQueue(queue.folder, most=9)
    assert later.load() == []
    assert set(later.jobs) == {other.id}
    assert not queue.folder.of(job).exists()


def test_nothing_is_deleted_unless_it_is_asked_for(queue: JobQueue) -> None:
    job = ended(queue, 0.0)
    Tidying(queue, None).look()
    assert queue.folder.picture(job, 0) is not None
    assert not any(isinstance(each, StoreError) for each in queue.folder.jobs())
