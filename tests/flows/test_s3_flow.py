"""A render into a bucket: killed, stopped and resumed from elsewhere, to the same bytes."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from frieze.renderer import Event, RenderCancelledError, render, resume
from frieze.renderer.codecs.output import Output
from frieze.renderer.errors import TakenOverError
from frieze.renderer.exports import tiff
from frieze.renderer.files import lease
from frieze.renderer.files.bucket import Bucket
from frieze.renderer.files.location import S3Path
from frieze.renderer.monitoring import run_log
from frieze.renderer.store.store import Store
from support.drawing import CASCADE, draw, grey_levels, pixels, small_spec
from support.s3_server import BUCKET, SECRET, S3Server
from support.stalled import stalled_render, wait_for
from tolerances import GREY_LEVELS

SMALL = {"workers": 2, "chunk": 64, "num_inference_steps": 3}


def drawn(address: str) -> np.ndarray:
    """The full-size picture in a store, [H, W, 3]."""
    store = Store.open(address)
    return store.read_rows(0, store.layout.height)


def test_a_killed_drivers_store_is_finished_from_another_process_to_the_same_bytes(
    s3: S3Server, tmp_path: Path
) -> None:
    draw(tmp_path / "near.zarr", **SMALL)
    address = f"s3://{BUCKET}/killed.zarr"
    short = "from frieze.renderer.files import lease as leases; leases.SECONDS = 1.5"
    with stalled_render(address, before=short, **SMALL) as process:
        wait_for(process, "block")
        process.send_signal(signal.SIGKILL)
    store = Store.open(address)
    assert 0 < len(store.done()) < store.layout.num_blocks
    result = resume(address, exports=[tmp_path / "far.tif"])
    assert str(result.path) == address
    assert np.array_equal(drawn(address), pixels(tmp_path / "near.zarr"))
    near = tiff.export(Output.of(tmp_path / "near.zarr", tmp_path / "near.tif"))
    assert near.read_bytes() == (tmp_path / "far.tif").read_bytes()
    assert store.directory.read(lease.NAME) is None
    lines = run_log.read(store.path)
    assert [line["event"] for line in lines].count("plan") == 2
    assert lines[-1]["event"] == "done"
    assert lines[0]["time"] <= lines[-1]["time"]


@pytest.mark.slow
@pytest.mark.ray
def test_ray_workers_that_know_no_keys_draw_into_their_drivers_bucket(
    tmp_path: Path, ray_cluster: int, s3: S3Server
) -> None:
    import ray

    draw(tmp_path / "near.zarr", **SMALL)
    address = f"s3://{BUCKET}/ray.zarr"
    draw(address, **SMALL, local=False)
    assert grey_levels(drawn(address), pixels(tmp_path / "near.zarr")) <= GREY_LEVELS
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    logs = [file for file in (session / "logs").rglob("*") if file.is_file()]
    assert logs
    assert not [file for file in logs if SECRET.encode() in file.read_bytes()]


def test_a_driver_that_lost_its_store_ends_at_once_and_writes_over_nothing(
    s3: S3Server, tmp_path: Path
) -> None:
    address = f"s3://{BUCKET}/lost.zarr"
    steps: list[Event] = []

    def listen(event: Event) -> None:
        """After a step, as if this process had slept while another one took over."""
        if event.kind == "step":
            steps.append(event)
            Bucket(S3Path(BUCKET, "lost.zarr")).write(lease.NAME, b'{"owner": "another"}')
            lease.held()[address].renewed = 0.0

    with pytest.raises(TakenOverError, match="taken over by another process"):
        render(small_spec(address, **SMALL), on_event=listen)
    assert len(steps) == 1
    store = Store.open(address)
    newest = store.last_state()
    assert newest is None or newest.step == 1
    assert [line["event"] for line in run_log.read(store.path)][-1] == "ended"


@pytest.mark.slow
@pytest.mark.ray
def test_a_stopped_cascade_goes_on_on_other_ray_workers_to_the_same_bytes(
    tmp_path: Path, ray_cluster: int, s3: S3Server
) -> None:
    draw(tmp_path / "near.zarr", **CASCADE, local=False)
    address = f"s3://{BUCKET}/cascade.zarr"
    cancel, steps = threading.Event(), []

    def listen(event: Event) -> None:
        if event.kind == "step":
            steps.append(event)
            if len(steps) == 4:
                cancel.set()

    spec = small_spec(address, **CASCADE, local=False)
    with pytest.raises(RenderCancelledError, match=f"frieze resume {address}"):
        render(spec, on_event=listen, cancel=cancel)
    assert address not in lease.held(), "another host may resume it at once"
    state = Store.open(address).last_state()
    assert state
    assert (state.stage, state.step) == (1, 1)
    resume(address)
    assert np.array_equal(drawn(address), pixels(tmp_path / "near.zarr"))
