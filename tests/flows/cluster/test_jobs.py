"""Renders as jobs of a real Ray cluster, sent by `ray job submit` and by `frieze submit`."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from frieze.renderer.journal.journal import FileJournal
from support.drawing import PROMPT, draw, grey_levels, pixels
from support.processes import free_port
from support.ray_head import Head, ray_head, wait_until
from tolerances import GREY_LEVELS

# Two jobs that import torch in every process take their time on a machine that is shared.
pytestmark = pytest.mark.timeout(600)
STEPS = 40
DRAW = ("render", PROMPT, "--size", "256x256", "--seed", "7", "--workers", "2")
LONG = (*DRAW, "--num-inference-steps", str(STEPS))


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as head:
        yield head


def states(store: Path) -> int:
    """Steps that are saved in a store."""
    journal = FileJournal(store / "frieze" / "journal.jsonl")
    return sum(event["event"] == "state" for event in journal.read())


def undisturbed(folder: Path, steps: int = STEPS) -> np.ndarray:
    draw(folder / "undisturbed.zarr", num_inference_steps=steps, workers=2)
    return pixels(folder / "undisturbed.zarr")


@pytest.mark.slow
def test_a_job_stopped_in_mid_picture_is_finished_when_it_is_sent_again(
    head: Head, tmp_path: Path
) -> None:
    out = tmp_path / "a.zarr"
    words = ("frieze", *LONG, "--out", str(out), "--continue")
    server = ("--address", head.url)
    code, _, err = head.run(
        "ray", "job", "submit", *server, "--submission-id", "first", "--no-wait", "--", *words
    )
    assert code == 0, err
    wait_until(lambda: states(out) > 1 or head.job("first")["end_time"])
    code, _, err = head.run("ray", "job", "stop", *server, "first")
    assert (code, head.ended("first")["status"]) == (0, "STOPPED"), err + head.log("first")
    saved, log = states(out), head.log("first")
    assert 1 < saved < STEPS, log
    assert f"step 1/{STEPS}" in log
    assert "stopping at the next step" in log
    assert not re.search(r"[\x1b\r]", log)
    code, out_text, err = head.submit("--submission-id", "again", "--", *LONG, "--out", str(out))
    assert code == 0, out_text + err
    assert f"step {STEPS}/{STEPS}" in out_text
    assert "step 1/" not in out_text
    assert out_text.endswith(f"{out}\n")
    about = head.job("again")
    assert (about["status"], about["driver_exit_code"]) == ("SUCCEEDED", 0)
    assert about["metadata"]["frieze_store"] == str(out)
    assert about["metadata"]["frieze_title"] == PROMPT
    whole = undisturbed(tmp_path)
    assert grey_levels(pixels(out), whole) <= GREY_LEVELS
    assert grey_levels(pixels(out), whole[::-1]) > GREY_LEVELS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"RAY_AUTH_MODE": "disabled"}, "wants a token"),
        ({"RAY_AUTH_TOKEN_PATH": "nowhere"}, "wants a token"),
        ({"RAY_AUTH_TOKEN_PATH": None, "RAY_AUTH_TOKEN": "0" * 64}, "does not know this token"),
    ],
    ids=["disabled", "no file", "wrong"],
)
def test_a_cluster_with_tokens_says_which_variables_it_wants(
    head: Head, changes: dict[str, str | None], part: str
) -> None:
    code, out, err = head.submit("--", *DRAW, "--out", "/nowhere/a.zarr", **changes)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    for text in (part, head.url, "RAY_AUTH_MODE=token", "RAY_AUTH_TOKEN_PATH"):
        assert text in err


def test_a_head_that_nobody_runs_is_told_at_once(tmp_path: Path) -> None:
    from support.command_line import frieze, refused

    for address in (f"http://127.0.0.1:{free_port()}", "ray://127.0.0.1:10001", "head"):
        shown = frieze("submit", "--address", address, "--", *DRAW, "--out", "/nowhere/a.zarr")
        refused(shown, address, "http://HEAD:8265")


@pytest.mark.slow
def test_a_name_is_given_to_one_job_only_and_ctrl_c_leaves_the_job_alone(
    head: Head, tmp_path: Path
) -> None:
    out = tmp_path / "a.zarr"
    words = ("--submission-id", "only", "--metadata", "shot=sq010", "--", *LONG, "--out", str(out))
    with head.start("frieze", "submit", "--address", head.url, *words) as process:
        assert process.stdout is not None
        assert any("step 1/" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    for text in ("goes on without you", "ray job logs --follow", "ray job stop", head.url):
        assert text in err
    assert head.job("only")["metadata"]["shot"] == "sq010"
    code, shown, err = head.submit(*words)
    assert (code, shown) == (2, "")
    assert "'only' is on the cluster already" in err
    assert (head.ended("only")["status"], states(out)) == ("SUCCEEDED", STEPS)


@pytest.mark.slow
def test_a_failing_job_gives_its_exit_code_and_nothing_is_written(
    head: Head, tmp_path: Path
) -> None:
    out = ("--out", str(tmp_path / "a.zarr"))
    code, shown, err = head.submit("--", *DRAW, *out, "--model", "/nowhere/model")
    assert (code, "no model folder" in shown, "exit code 2" in err) == (2, True, True)
    code, shown, err = head.submit("--python", "/usr/bin/nopython", "--", *DRAW, *out)
    assert (code, "--python" in err) == (127, True), shown + err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_cluster_without_room_says_what_it_has_after_a_set_time(
    head: Head, tmp_path: Path
) -> None:
    words = (*DRAW[:-1], "9", "--wait", "5", "--out", str(tmp_path / "a.zarr"))
    code, shown, _ = head.submit("--", *words)
    assert code == 2
    told = next(line for line in shown.splitlines() if line.startswith("frieze: "))
    for text in ("9 workers", "1 CPU", "4 CPU", "--wait"):
        assert text in told
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_relative_files_and_variables_go_with_the_job(head: Head, tmp_path: Path) -> None:
    from PIL import Image

    inputs = head.folder / "inputs"
    inputs.mkdir()
    Image.new("RGB", (256, 256), "darkred").save(inputs / "sketch.png")
    (inputs / "mine.yaml").write_text("num_inference_steps: 4\nstrength: 0.5\n")
    words = (*DRAW, "--preset", "inputs/mine.yaml", "--init", "inputs/sketch.png")
    code, shown, err = head.submit(
        *("--env", "COLUMNS=77", "--", *words, "--out", str(tmp_path / "a.tif"))
    )
    assert code == 0, shown + err
    assert "stage 1/1: step 2/2" in shown
    assert (tmp_path / "a.tif").is_file()
    (job,) = (
        j
        for j in head.ask("/api/jobs/")
        if j["metadata"].get("frieze_store") == str(tmp_path / "a.zarr")
    )
    assert job["runtime_env"]["env_vars"] == {"COLUMNS": "77"}
    assert job["submission_id"].startswith("frieze-a-")


# A driver that joins the cluster from elsewhere

ALONE = ("render", "x", "--size", "256x256", "--num-inference-steps", "1", "--quiet")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN_PATH": "nowhere"}], ids=str
)
def test_a_driver_without_the_token_is_told_which_variables_are_wanted(
    head: Head, tmp_path: Path, changes: dict[str, str | None]
) -> None:
    address = f"{head.node}:{head.port}"
    words = (*ALONE, "--address", address, "--out", str(tmp_path / "a.zarr"))
    code, out, err = head.run("frieze", *words, **changes)
    told = err.splitlines()[-1]
    assert (code, out) == (2, ""), err
    for text in (address, "RAY_AUTH_MODE=token", "RAY_AUTH_TOKEN_PATH"):
        assert text in told
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_driver_of_another_ray_is_told_both_versions(head: Head, tmp_path: Path) -> None:
    import ray

    older = (
        "import ray; ray.__version__ = '2.59.0'; from frieze.renderer.cli.app import main; main()"
    )
    words = (*ALONE, "--address", f"{head.node}:{head.port}", "--out", str(tmp_path / "a.zarr"))
    code, out, err = head.run("python", "-c", older, *words)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    for text in (f"Ray {ray.__version__}", "Ray 2.59.0", "frieze submit"):
        assert text in err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_driver_that_comes_and_goes_leaves_the_cluster_running(
    head: Head, tmp_path: Path
) -> None:
    before = head.ask("/api/version")
    words = (*ALONE, "--address", f"{head.node}:{head.port}", "--out", str(tmp_path / "a.zarr"))
    code, _, err = head.run("frieze", *words)
    assert code == 0, err
    assert head.ask("/api/version") == before


@pytest.mark.slow
def test_the_status_of_a_job_is_that_of_its_store(head: Head, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    draw(out, num_inference_steps=1)
    server = ("--address", head.url)
    for name, store in (("known", out), ("lost", tmp_path / "b.zarr"), ("other", None)):
        about = json.dumps({"frieze_store": str(store)} if store else {})
        words = ("--submission-id", name, "--no-wait", "--metadata-json", about, "--", "true")
        code, _, err = head.run("ray", "job", "submit", *server, *words)
        assert code == 0, err
    code, shown, err = head.run("frieze", "status", "known", *server)
    assert (code, shown) == (0, f"{out}: done, 16 blocks\n"), err
    for name, part in (
        ("lost", f"its store {tmp_path / 'b.zarr'} is not there"),
        ("other", "names no store"),
        ("unheard-of", "unheard-of does not exist"),
    ):
        code, shown, err = head.run("frieze", "status", name, *server)
        assert (code, shown, err.count("\n")) == (2, "", 1), err
        assert part in err
