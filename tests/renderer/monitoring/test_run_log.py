"""The log beside a store: whole lines, no secrets, figures that are the store's own."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from contracts.export import make_store, picture
from frieze.renderer import RenderCancelledError, RenderSpec, render, resume
from frieze.renderer.monitoring import run_log
from frieze.renderer.monitoring.run_log import RunLog, read, redacted
from frieze.renderer.monitoring.status import status
from frieze.renderer.store.store import Store
from support.drawing import CASCADE, draw


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cascade of two stages on two ranks, undisturbed."""
    out = tmp_path_factory.mktemp("drawn") / "a.zarr"
    draw(out, **CASCADE)
    return out


def test_every_line_is_json_and_in_order(drawn: Path) -> None:
    text = (drawn / "frieze" / "log.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines == read(drawn)
    times = [line["time"] for line in lines]
    assert times == sorted(times)
    kinds = [line["event"] for line in lines]
    assert [kind for kind in kinds if kind != "note"][:3] == ["plan", "workers", "stage"]
    assert kinds[-1] == "done"


def test_its_figures_are_those_of_the_store(drawn: Path) -> None:
    store, lines = Store.open(drawn), read(drawn)
    blocks = [line for line in lines if line["event"] == "block"]
    assert sum(line["new"] for line in blocks) == store.layout.num_blocks == blocks[-1]["blocks"]
    assert sum(line["bytes"] for line in blocks) == store.arrays.pixels[0].nbytes
    steps = [(line["stage"], line["step"]) for line in lines if line["event"] == "step"]
    assert steps == [(stage, step) for stage in (1, 2) for step in (1, 2, 3)]
    for line in (line for line in lines if line["event"] == "save"):
        _, *sides = store.layout.latents[line["stage"] - 1].shape
        assert line["bytes"] == 4 * math.prod(sides)
    states = [e for e in store.journal.read() if e["event"] == "state"]
    assert len(states) == sum(line["event"] == "save" for line in lines)


def test_a_steps_seconds_and_bytes_add_up_from_its_ranks(drawn: Path) -> None:
    for line in (line for line in read(drawn) if line["event"] == "step"):
        slowest = max(line["ranks"], key=lambda rank: rank["seconds"])
        assert line["seconds"] == slowest["seconds"]
        parts = line["compute"] + line["exchange"] + line["saving"]
        assert parts == pytest.approx(line["seconds"], abs=1e-4)
        assert 0 < line["exchange"] < line["seconds"]
        assert 0 < line["moved_bytes"] == sum(rank["bytes_sent"] for rank in line["ranks"])


def test_control_one_rank_moves_nothing_and_waits_for_nobody(tmp_path: Path) -> None:
    draw(tmp_path / "a.zarr", num_inference_steps=1)
    (step,) = (line for line in read(tmp_path / "a.zarr") if line["event"] == "step")
    assert (step["moved_bytes"], step["exchange"], len(step["ranks"])) == (0, 0, 1)


def test_a_stopped_render_says_so_and_its_resume_goes_on_in_the_same_log(tmp_path: Path) -> None:
    def stop(handle: object, step: int, timestep: float, more: object) -> None:
        handle.interrupt = step == 1  # type: ignore[attr-defined]

    spec = {"num_inference_steps": 3, "prompt": "a pale moon", "height": 256, "width": 256}
    out = tmp_path / "a.zarr"
    with pytest.raises(RenderCancelledError):
        render(RenderSpec(**spec, local=True, out=str(out)), callback_on_step_end=stop)
    last = read(out)[-1]
    assert (last["event"], last["is_asked"], last["error"]) == (
        "ended",
        True,
        "RenderCancelledError",
    )
    resume(out)
    lines = read(out)
    assert [line["resumes"] for line in lines if line["event"] == "plan"] == [False, True]
    assert [line["step"] for line in lines if line["event"] == "step"] == [1, 2, 3]
    assert lines[-1]["event"] == "done"
    assert "pale moon" not in (out / "frieze" / "log.jsonl").read_text()


def test_a_full_file_is_set_aside_and_the_oldest_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_log, "MOST_BYTES", 500)
    (tmp_path / "frieze").mkdir()
    log = RunLog()
    log.write({"event": "note", "number": -1})
    log.keep(tmp_path)
    for number in range(200):
        log.write({"event": "note", "number": number})
    files = sorted(file.name for file in (tmp_path / "frieze").iterdir())
    assert files == ["log.1.jsonl", "log.2.jsonl", "log.3.jsonl", "log.jsonl"]
    assert all(file.stat().st_size < 600 for file in (tmp_path / "frieze").iterdir())
    numbers = [line["number"] for line in read(tmp_path)]
    assert numbers == list(range(numbers[0], 200))


def test_a_torn_line_is_passed_over_and_ends_before_the_next(tmp_path: Path) -> None:
    (tmp_path / "frieze").mkdir()
    file = tmp_path / "frieze" / "log.jsonl"
    file.write_text('{"time": 1.0, "event": "note"}\n{"time": 2.0, "ev')
    log = RunLog()
    log.keep(tmp_path)
    log.write({"event": "step", "stage": 1, "step": 1, "seconds": 0.5})
    assert [line["event"] for line in read(tmp_path)] == ["note", "step"]
    assert file.read_text().count("\n") == 3


def test_a_log_that_cannot_be_written_does_not_stop_a_render(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = RunLog()
    log.keep(tmp_path / "nowhere")
    log.write({"event": "step"})
    log.write({"event": "step"})
    (record,) = caplog.records
    assert "goes on without it" in record.getMessage()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("no Ray at ray://me:s3cret@head:6379", "no Ray at ray://***@head:6379"),
        ("GET https://b.example/x?X-Amz-Signature=abc12&x=1", "Signature=***&x=1"),
        ("Authorization: Bearer abc.def", "Bearer ***"),
        ("401 for hf_abcdefghijkl", "401 for ***"),
        ("key AKIAIOSFODNN7EXAMPLE is unknown", "key *** is unknown"),
    ],
)
def test_secrets_in_messages_are_left_out(text: str, kept: str) -> None:
    assert redacted(text).endswith(kept)
    assert redacted("rank 1 (cpu, pid 77 on node-3) was lost in 'step'") == (
        "rank 1 (cpu, pid 77 on node-3) was lost in 'step'"
    )


def test_numbers_that_json_has_not_are_none_in_what_is_written_and_read(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32))
    log = RunLog()
    log.keep(store.path)
    told = {"event": "digests", "ranks": [{"x": ["ab", None, float("nan")]}], "most": float("inf")}
    log.write(told)
    (line,) = (store.path / "frieze" / "log.jsonl").read_text().splitlines()
    json.loads(line, parse_constant=pytest.fail)
    found = told | {"ranks": [{"x": ["ab", None, None]}], "most": None}
    assert [fields | {"time": 0} for fields in read(store.path)] == [found | {"time": 0}]
    line = '{"event": "plan", "time": 1, "stages": [{"size": [8, 8], "steps": 1, "cost": %s}]}\n'
    for number, known in (("NaN", None), ("1e999", None), ("-Infinity", None), ("2.5", 2.5)):
        (store.path / "frieze" / "log.jsonl").write_text(line % number)
        assert read(store.path)[0]["stages"][0]["cost"] == known
        json.dumps(status(store.path).as_json(), allow_nan=False)


def test_a_line_of_a_damaged_log_is_passed_over(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", picture(64, 64), (32, 32))
    good = {"event": "step", "time": 1.0, "stage": 1, "step": 2, "seconds": 0.5}
    bad = [{k: v for k, v in good.items() if k != name} for name in good]
    bad += [good | {"stage": "1"}, good | {"seconds": float("nan")}, good | {"time": 10**400}]
    bad += [{**good, "event": "plan", "stages": [{"size": [0, 8], "steps": 1}]}]
    bad += [good | {"stages": [{"size": ["64", 64], "steps": 1}]}]
    bad += [good | {"workers": [{"rank": "1", "device": "cpu", "pid": 1, "node": "a"}]}]
    bad += [good | {"size": size} for size in (7, [7], [64, "64"], [64, 64, 64], {"x": 64}, "64")]
    bad += [good | {"accuracy": {"predicted": 1.0, "took": took}} for took in ("1", [1.0], None)]
    bad += [good | {name: "x"} for name in ("reused", "evaluations", "saving", "accuracy")]
    texts = [json.dumps(line) for line in (*bad, good)]
    texts += ["[" * 10**5, "\xff"]
    log = store.path / "frieze" / "log.jsonl"
    log.write_bytes("\n".join(texts).encode("latin-1") + b"\n")
    assert read(store.path) == [good]
    log.write_text(json.dumps(good | {"stage": 9}) + "\n")
    assert status(store.path).state == "done"
