from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from frieze.cluster.fleet import Fleet, FleetError, LocalFleet, SoloFleet, WorkerLostError
from frieze.cluster.ray.actor_fleet import RayFleet
from support.fleet_workers import Unwilling, Worker, once, released
from support.forkserver import Program
from tolerances import AMPLE

LOCAL_KINDS = ("threads", "turns")
KINDS = (*LOCAL_KINDS, pytest.param("ray", marks=pytest.mark.ray))
# What costs a rank of Ray's its life has a test in `test_mending.py` too.
LATER = pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow])
FOREVER = 3600.0  # seconds; longer than a test may take
BRIEF = 0.5  # seconds for a rank that will say nothing


@pytest.fixture(params=KINDS)
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """Two ranks of base 10 that a test may break."""
    released.clear()
    if request.param == "ray":
        yield request.getfixturevalue("ray_fleet")
        return
    turns = request.param == "turns"
    with LocalFleet.launch(Worker, 2, 10, timeout=AMPLE, turns=turns) as fleet:
        yield fleet


def wait_until(is_true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + AMPLE
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return is_true()


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_all_ranks_answer_in_rank_order(fleet: Fleet) -> None:
    assert fleet.all("rank") == [0, 1]
    assert fleet.all("total", 5) == [31, 31]


def test_one_rank_answers_alone(fleet: Fleet) -> None:
    assert [fleet.one("rank"), fleet.one("rank", rank=1)] == [0, 1]


def test_items_arrive_from_all_ranks_in_their_order(fleet: Fleet) -> None:
    items: dict[int, list[int]] = {0: [], 1: []}
    for rank, item in fleet.stream("count", 4):
        items[rank].append(item)
    assert items == {0: [21, 23, 25, 27], 1: [21, 23, 25, 27]}
    assert fleet.all("rank") == [0, 1]


def test_thread_local_state_lives_from_verb_to_verb(fleet: Fleet) -> None:
    fleet.all("remember", 7)
    assert fleet.all("recall") == [7, 7]


def test_a_second_verb_is_refused_while_one_runs(fleet: Fleet) -> None:
    stream = fleet.stream("count", 2)
    next(stream)
    with pytest.raises(FleetError, match=r"'rank'.*'count' runs"):
        fleet.all("rank")
    assert len(list(stream)) == 3


def test_places_name_ranks_and_processes(fleet: Fleet) -> None:
    places = fleet.describe()
    assert [place.rank for place in places] == [0, 1]
    assert all(is_running(place.pid) for place in places)


def test_a_workers_own_exception_arrives(fleet: Fleet) -> None:
    with pytest.raises(KeyError) as caught:
        fleet.all("fail", 1, "the third chunk")
    assert caught.value.args == ("the third chunk",)
    assert "raised in 'fail' on rank 1" in caught.value.__notes__[0]
    with pytest.raises(FleetError, match="has ended"):
        fleet.all("rank")


@pytest.mark.parametrize(
    "kind",
    [LocalFleet, pytest.param(RayFleet, marks=pytest.mark.ray)],
    ids=lambda kind: kind.__name__,
)
def test_a_worker_that_cannot_be_built_says_why(
    kind: type[Fleet], request: pytest.FixtureRequest
) -> None:
    if kind is RayFleet:
        request.getfixturevalue("ray_cluster")
    with pytest.raises(ValueError, match="no weights here"):
        kind.launch(Unwilling, 1)


def test_an_unknown_verb_is_named(fleet: Fleet) -> None:
    with pytest.raises(AttributeError, match="stpe"):
        fleet.all("stpe")


@pytest.mark.parametrize("fleet", [*LOCAL_KINDS, LATER], indirect=True)
def test_a_rank_that_ends_is_lost(fleet: Fleet) -> None:
    with pytest.raises(WorkerLostError, match=r"rank 0 .* was lost in 'exit'") as caught:
        fleet.one("exit")
    assert caught.value.rank == 0


def test_a_hanging_rank_is_named() -> None:
    released.clear()
    with LocalFleet.launch(Worker, 2, timeout=AMPLE) as fleet:
        fleet.grace = BRIEF
        with pytest.raises(WorkerLostError, match=r"rank 1 .* hangs in 'stall'") as caught:
            fleet.all("stall", 1, FOREVER, timeout=1.0)
        assert caught.value.rank == 1
        released.set()


def test_a_collective_on_one_rank_alone_times_out() -> None:
    lost = pytest.raises(WorkerLostError, match="lost each other in 'total': no rank reported")
    with LocalFleet.launch(Worker, 2, timeout=AMPLE) as fleet, lost:
        fleet.one("total", 1, timeout=1.0)


def test_leaving_a_stream_closes_the_ranks_generators(fleet: Fleet, tmp_path: Path) -> None:
    stream, begun = fleet.stream("until_closed", str(tmp_path)), set()
    for rank, item in stream:
        begun.add(str(rank))
        if (rank, item) == (0, 2):
            break
    stream.close()
    assert wait_until(lambda: {path.name for path in tmp_path.iterdir()} >= begun)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Ctrl-C raises, also where the tests run as a background job, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_comes_through(fleet: Fleet, tmp_path: Path) -> None:
    begun = once(tmp_path / "begun", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fleet.all("stall", 0, FOREVER, begun)
    os.unlink(begun)


@pytest.mark.ray
def test_an_exception_that_cannot_travel_keeps_its_name(ray_fleet: RayFleet) -> None:
    with pytest.raises(FleetError, match="OddError: one and two") as caught:
        ray_fleet.all("fail_oddly")
    assert "fleet_workers.py" in caught.value.__notes__[1]


@pytest.mark.ray
def test_what_does_not_fit_is_said(ray_cluster: int) -> None:
    with pytest.raises(FleetError, match=r"2 workers of 1 CPU and 4 GPU each.*0 GPU"):
        RayFleet.launch(Worker, 2, num_gpus=4.0, wait=0.5)


@pytest.mark.ray
def test_closing_leaves_nothing_behind(ray_cluster: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def groups() -> int:
        table = ray.util.placement_group_table()
        return sum(group["state"] != "REMOVED" for group in table.values())

    def free() -> float:
        return float(ray.available_resources().get("CPU", 0.0))

    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "backend:cudaMallocAsync")
    actors, bundles, cpus = ray.util.list_named_actors(), groups(), free()
    with RayFleet.launch(Worker, 1) as fleet:
        pids = [place.pid for place in fleet.describe()]
        assert fleet.all("environment", "PYTORCH_CUDA_ALLOC_CONF") == [""]
        assert len(ray.util.list_named_actors()) == len(actors) + 1
        assert groups() == bundles + 1
        assert fleet.all("total", 1) == [1]  # beside another, which may have broken
    fleet.close()
    assert not any(map(is_running, pids))
    assert sorted(ray.util.list_named_actors()) == sorted(actors)
    assert groups() == bundles
    # More, where what an earlier fleet had was not all back yet.
    assert wait_until(lambda: free() >= cpus)


def run_script(script: str) -> subprocess.CompletedProcess[str]:
    tests = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(tests), "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=AMPLE,
    )


LOCAL = """
import sys
from support.fleet_workers import Worker
from frieze.cluster.fleet.thread_fleet import LocalFleet
with LocalFleet.launch(Worker, 2) as fleet:
    assert fleet.all("total", 0) == [1, 1]
assert "ray" not in sys.modules
"""


def test_threads_need_no_ray() -> None:
    program = Program(LOCAL)
    program.communicate(timeout=AMPLE)
    assert program.returncode == 0


PRIVATE = """
import os
from support.fleet_workers import Worker
from frieze.cluster.fleet import FleetError
from frieze.cluster.ray.actor_fleet import RayFleet
for address in ("127.0.0.1:1", "somewhere", "ray://127.0.0.1:1"):
    try:
        RayFleet.launch(Worker, 1, address=address)
    except FleetError as error:
        assert address in str(error)
    else:
        raise AssertionError(address)
fleet = RayFleet.launch(Worker, 3)
assert fleet.all("total", 0) == [3, 3, 3]
print(*(place.pid for place in fleet.describe()))
1 / 0
"""


@pytest.mark.slow
def test_a_ray_started_for_a_fleet_ends_with_it() -> None:
    done = run_script(PRIVATE)
    assert "ZeroDivisionError" in done.stderr.splitlines()[-1], done.stderr
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 3
    assert not any(map(is_running, pids))


def test_a_solo_fleet_works_on_the_drivers_thread_and_ends_like_the_others(
    tmp_path: Path,
) -> None:
    with SoloFleet.launch(Worker, 10) as fleet:
        assert fleet.all("total", 1) == [11]
        assert list(fleet.stream("count", 3)) == [(0, 10), (0, 11), (0, 12)]
        assert fleet.describe()[0].pid == os.getpid()
        with pytest.raises(KeyError, match="no such thing"):
            fleet.all("fail", 0, "no such thing")
        with pytest.raises(FleetError, match="has ended"):
            fleet.all("total", 1)
    with SoloFleet.launch(Worker) as fleet:
        stream = fleet.stream("until_closed", str(tmp_path))
        next(stream)
        stream.close()
        assert [path.name for path in tmp_path.iterdir()] == ["0"]


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_ends_a_solo_fleet(tmp_path: Path) -> None:
    released.clear()
    with SoloFleet.launch(Worker) as fleet:
        begun = once(tmp_path / "begun", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fleet.all("stall", 0, FOREVER, begun)
