"""A queue of jobs on a disk that takes no more, and after a kill."""

from __future__ import annotations

from pathlib import Path

import pytest

from frieze.renderer.server.api_error import ApiError, public
from frieze.renderer.server.jobs.job import Job, JobFolder, JobState, new_id, now
from frieze.renderer.server.jobs.job_queue import JobQueue


def waiting(queue: JobQueue, owner: str = "", priority: int = 0, pictures: int = 1) -> Job:
    """A job that was submitted."""
    job = new(queue)
    job.owner, job.priority, job.items = owner, priority, job.items * pictures
    queue.submit(job)
    return job


def drawn(queue: JobQueue, most: int = 100) -> str:
    """The owners of the jobs that are drawn next, in their order."""
    owners = ""
    while len(owners) < most and (job := queue.first()):
        with queue.changed:
            queue.take(job)
        queue.end(job, "completed")
        owners += job.owner
    return owners


def new(queue: JobQueue) -> Job:
    job = Job(
        id=new_id(),
        kind="image_generation",
        model="demo",
        owner="",
        created=now(),
        priority=0,
        items=[{"prompt": "a sun"}],
        told={"output_format": "png"},
    )
    queue.folder.make(job.id)
    return job


def state_on_disk(queue: JobQueue, job: Job) -> JobState:
    """What a server that starts now would read."""
    (found,) = (each for each in queue.folder.jobs() if isinstance(each, Job) and each.id == job.id)
    return found.state


@pytest.fixture
def queue(tmp_path: Path) -> JobQueue:
    (tmp_path / "served").mkdir()
    return JobQueue(JobFolder(tmp_path / "served"), most=9)


def full(queue: JobQueue) -> Path:
    """Takes the folder away, so that nothing can be written; returns where it is."""
    return queue.folder.root.rename(queue.folder.root.with_name("away"))


def test_a_job_waits_where_the_disk_takes_no_more(queue: JobQueue) -> None:
    job = waiting(queue)
    away = full(queue)
    with queue.changed:
        assert not queue.take(job)
        assert queue.first() is job
        assert job.state == "queued"
    away.rename(queue.folder.root)
    with queue.changed:
        assert queue.take(job)
        assert queue.first() is None
    assert state_on_disk(queue, job) == "in_progress"


def test_an_end_that_cannot_be_written_is_written_later(queue: JobQueue) -> None:
    job = waiting(queue)
    with queue.changed:
        assert queue.take(job)
    away = full(queue)
    queue.end(job, "failed", "no space")
    assert job.state == "failed"
    away.rename(queue.folder.root)
    assert state_on_disk(queue, job) == "in_progress"  # control: nobody wrote it yet
    queue.write_again()
    assert state_on_disk(queue, job) == "failed"


def test_a_new_job_is_refused_where_it_cannot_be_kept(queue: JobQueue) -> None:
    job = new(queue)
    full(queue)
    with pytest.raises(ApiError, match="cannot be kept") as refused:
        queue.submit(job)
    assert refused.value.status == 507
    assert refused.value.headers["Retry-After"]
    assert queue.first() is None
    assert str(queue.folder.root) not in refused.value.body["error"]["message"]


def test_a_job_whose_folder_is_gone_holds_up_no_other(queue: JobQueue) -> None:
    job, other = waiting(queue), waiting(queue)
    queue.folder.discard(job.id)
    with queue.changed:
        assert queue.take(job)  # whose run then says what is missing
    queue.end(job, "failed", "it is gone")
    assert queue.first() is other


@pytest.mark.parametrize(("is_cancelled", "state"), [(True, "cancelled"), (False, "queued")])
def test_a_cancelled_job_stays_so_when_the_server_is_killed(
    queue: JobQueue, is_cancelled: bool, state: JobState
) -> None:
    job = waiting(queue)
    with queue.changed:
        queue.take(job)
    if is_cancelled:
        queue.cancel(job)
    later = JobQueue(queue.folder, most=9)
    assert later.load() == []
    assert later.jobs[job.id].state == state
    assert (later.first() is None) == is_cancelled


def test_a_message_keeps_the_addresses_of_the_api() -> None:
    assert public("see /v1/models, not /models/hub/model") == "see /v1/models, not model"


def test_many_jobs_of_one_owner_starve_no_other(queue: JobQueue) -> None:
    queue.most = 100
    for _ in range(50):
        waiting(queue, "a")
    assert drawn(queue, 3) == "aaa"
    for _ in range(3):
        waiting(queue, "b")
    waiting(queue, "c")
    waiting(queue, "b", priority=1)
    assert drawn(queue, 1) == "b", "a higher priority comes first"
    later = JobQueue(queue.folder, most=100)
    assert later.load() == []
    assert drawn(later, 8) == "bcababaa"
    waiting(later, "c")
    assert drawn(later, 2) == "ca"
    # Control: in the order of their coming all of a's would have been first.
    assert drawn(later) == "a" * 42


def test_pictures_count_not_jobs_and_what_is_cancelled_counts_nothing(queue: JobQueue) -> None:
    first = [waiting(queue, "a", pictures=3) for _ in range(2)]
    for _ in range(5):
        waiting(queue, "b")
    assert drawn(queue) == "abbbabb"
    for job in [waiting(queue, "a") for _ in range(9)]:
        queue.cancel(job)
    waiting(queue, "b")
    waiting(queue, "a")
    assert drawn(queue) in ("ab", "ba")
    assert [job.state for job in first] == ["completed"] * 2


def test_the_order_is_no_clock_s(queue: JobQueue) -> None:
    first, second = new(queue), new(queue)
    second.created = first.created - 3600  # the clock was set back
    for job in (first, second):
        queue.submit(job)
    later = JobQueue(queue.folder, most=9)
    later.load()
    assert later.first() == later.jobs[first.id]
    assert [job.id for job in later.owned("")] == [second.id, first.id]


def test_a_full_queue_leaves_every_owner_its_share(tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    queue = JobQueue(JobFolder(tmp_path / "served"), most=4, owners=2)
    for _ in range(4):
        waiting(queue, "a")
    with pytest.raises(ApiError, match="no more may"):
        waiting(queue, "a")
    waiting(queue, "b")
    waiting(queue, "b")
    with pytest.raises(ApiError, match="no more may"):
        waiting(queue, "b")
