"""The files in configs/farms: what SLURM, OpenJD, OpenCue and our command line make of them."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.command_line import check

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "configs" / "farms"
SLURM, OPENJD, OPENCUE = (FOLDER / n for n in ("slurm.sh", "openjd.yaml", "opencue.outline"))
SMALL = {"Size": "64x64", "Steps": "2", "Seeds": "7", "Method": "none"}

# SLURM: the script itself, between programs that write down what they are told

PROGRAMS = {
    "srun": 'echo "srun $*" >> log; while [[ $1 == --* ]]; do shift; done; '
    'SLURM_PROCID=${RANK:-0} exec "$@"',
    "scontrol": 'echo "scontrol $*" >> log',
    "ray": 'echo "ray $*" >> log; [[ -z ${NO_RAY-} ]] || exit 1; exec "$PYTHON" -c "'
    "import signal, socket\n"
    "listener = socket.create_server(('127.0.0.1', $FRIEZE_PORT)); signal.pause()\"",
    "frieze": "trap 'echo stopped >> log; kill $!; exit 130' TERM; "
    'printf "%s\\n" "$@" > words; touch begun; [[ -z ${LONG-} ]] || { sleep 30 & wait; }',
}


@pytest.fixture
def allocation(tmp_path: Path) -> dict[str, str]:
    """The environment of a job on one node of two GPUs; programs of a farm come first on PATH."""
    for name, body in PROGRAMS.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    own = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": sys.executable}
    own |= {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NUM_NODES": "1"}
    own |= {"SLURMD_NODENAME": "node", "HEAD_IP": "127.0.0.1", "SLURM_GPUS_ON_NODE": "2"}
    return {**os.environ, **own}


def run_slurm(place: Path, environment: dict[str, str], *words: str) -> subprocess.Popen[str]:
    command = ["bash", str(SLURM), *words]
    return subprocess.Popen(
        command, cwd=place, env=environment, stderr=subprocess.PIPE, text=True, bufsize=1
    )


def ended(job: subprocess.Popen[str]) -> tuple[int, str]:
    _, told = job.communicate(timeout=60)
    return job.returncode, told


def test_slurm_draws_a_batch_on_a_ray_of_its_own(
    tmp_path: Path, allocation: dict[str, str]
) -> None:
    job = run_slurm(tmp_path, allocation, "jobs.yaml", "/renders/a b", "--retries", "3")
    assert ended(job) == (0, "")
    words = (tmp_path / "words").read_text().splitlines()
    check(words)
    told = dict(itertools.pairwise(words))
    assert words[:2] == ["batch", "jobs.yaml"]
    assert told["--out"] == "/renders/a b"
    assert told["--workers"] == "2"
    assert told["--retries"] == "3"
    assert "--continue" in words
    log = (tmp_path / "log").read_text()
    (started,) = re.findall(r"^ray start (.*)", log, re.MULTILINE)
    assert f"--port={told['--address'].split(':')[1]}" in started
    assert "--num-gpus=2" in started
    assert "--head" in started
    assert "scontrol" not in log


@pytest.mark.ray  # whose scripts define remote functions where they are imported
def test_slurm_starts_ray_by_flags_that_it_has(tmp_path: Path, allocation: dict[str, str]) -> None:
    from ray.scripts.scripts import start

    for rank in ("0", "1"):
        environment = allocation | {"RANK": rank, "HEAD_IP": "127.0.0.1"}
        assert ended(run_slurm(tmp_path, environment, "jobs.yaml", "out"))[0] == 0
    head, other = re.findall(r"^ray start (.*)", (tmp_path / "log").read_text(), re.MULTILINE)
    known = {flag for parameter in start.params for flag in parameter.opts}
    for words in (head.split(), other.split()):
        assert {word.split("=")[0] for word in words} <= known
        assert ("--head" in words) != any(word.startswith("--address=") for word in words)


@pytest.mark.parametrize(("number", "again"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_slurm_queues_a_job_again_whose_time_ends_and_no_other(
    tmp_path: Path, allocation: dict[str, str], number: signal.Signals, again: bool
) -> None:
    job = run_slurm(tmp_path, allocation | {"LONG": "yes"}, "jobs.yaml", "out")
    until(lambda: (tmp_path / "begun").exists())
    job.send_signal(number)
    assert ended(job)[0] == 130
    log = (tmp_path / "log").read_text()
    assert "stopped" in log
    assert (f"scontrol requeue {allocation['SLURM_JOB_ID']}" in log) == again


def test_slurm_says_what_is_missing(tmp_path: Path, allocation: dict[str, str]) -> None:
    code, told = ended(run_slurm(tmp_path, allocation, "jobs.yaml"))
    assert (code, told.count("\n")) == (2, 1)
    assert "JOBS FOLDER" in told
    code, told = ended(run_slurm(tmp_path, allocation | {"NO_RAY": "yes"}, "jobs.yaml", "out"))
    assert (code, told) == (1, "Ray ended before it could be reached\n")


def test_slurm_is_told_to_signal_and_to_queue_again() -> None:
    lines = re.findall(r"^#SBATCH (.*)", SLURM.read_text(), re.MULTILINE)
    assert {"--requeue", "--open-mode=append", "--ntasks-per-node=1"} <= set(lines)
    (said,) = (line for line in lines if line.startswith("--signal="))
    assert re.fullmatch(r"--signal=B:USR1@\d+", said)


def until(holds: Any) -> None:
    while not holds():
        time.sleep(0.01)


# OpenJD


def template() -> Any:
    return yaml.safe_load(OPENJD.read_text())


def test_openjd_takes_the_template() -> None:
    from openjd.model import DecodeValidationError, decode_job_template

    assert decode_job_template(template=template()).name == "{{Param.Name}}"
    broken = template()
    broken["steps"][1]["dependencies"][0]["dependsOn"] = "Rendre"
    with pytest.raises(DecodeValidationError, match="Rendre"):
        decode_job_template(template=broken)


def test_openjd_tasks_are_commands_of_ours() -> None:
    values = {each["name"]: str(each.get("default", "/renders")) for each in template()[KEY]}
    for step in template()["steps"]:
        run = step["script"]["actions"]["onRun"]
        words = [PARAM.sub(lambda m: values.get(m[1], "3"), word) for word in run["args"]]
        assert run["command"] == "frieze"
        check(words)
        assert {"--continue", "--overwrite"} & set(words)  # may be tried again


KEY, PARAM = "parameterDefinitions", re.compile(r"\{\{(?:Param|Task\.Param)\.(\w+)\}\}")


def openjd(folder: Path, **parameters: str) -> subprocess.Popen[str]:
    """`openjd run` of the template in a process of its own."""
    given = {**SMALL, **parameters, "Folder": str(folder)}
    own = Path(sys.executable).parent
    command = [str(own / "openjd"), "run", str(OPENJD), "--step", "Export", "--run-dependencies"]
    command += [word for name, value in given.items() for word in ("-p", f"{name}={value}")]
    environment = {**os.environ, "PATH": f"{own}:{os.environ['PATH']}"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_openjd_draws_and_exports(tmp_path: Path) -> None:
    job = openjd(tmp_path)
    told, _ = job.communicate(timeout=300)
    assert job.returncode == 0, told
    assert "Session ended successfully" in told
    assert told.index("Running step 'Render'") < told.index("Running step 'Export'")
    assert {path.name for path in tmp_path.iterdir()} == {"seed-7.zarr", "seed-7.tif"}


@pytest.mark.slow
def test_openjd_goes_on_with_a_task_that_was_killed(tmp_path: Path) -> None:
    long = {"Size": "256x256", "Steps": "60"}
    drawn, whole = tmp_path / "drawn", tmp_path / "whole"
    drawn.mkdir()
    whole.mkdir()
    job = openjd(drawn, **long)
    log = drawn / "seed-7.zarr" / "frieze" / "log.jsonl"
    until(lambda: log.exists() and log.read_text().count('"event": "step"') > 9)
    frieze = re.compile(r"Command started as pid: (\d+)")
    pid = next(found[1] for line in job.stdout or () if (found := frieze.search(line)))
    os.killpg(int(pid), signal.SIGKILL)
    job.communicate(timeout=300)
    assert job.returncode != 0
    assert not (drawn / "seed-7.tif").exists()
    again = openjd(drawn, **long)
    told, _ = again.communicate(timeout=300)
    assert again.returncode == 0, told
    # What is saved is not drawn again.
    assert min(map(int, re.findall(r"step (\d+)/60", told)), default=0) > 5
    other = openjd(whole, **long)
    other.communicate(timeout=300)
    assert (drawn / "seed-7.tif").read_bytes() == (whole / "seed-7.tif").read_bytes()


# OpenCue: its library is no dependency of the tests, and so its layers are written down


def layers(monkeypatch: pytest.MonkeyPatch, folder: str) -> list[Any]:
    """The layers of the outline, with the arguments that pyoutline's Shell would get."""
    made: list[Any] = []

    class Shell:
        def __init__(self, name: str, **arguments: Any) -> None:
            self.name, self.arguments, self.needs = name, arguments, list[Any]()
            made.append(self)

        def depend_on(self, layer: Any) -> None:
            self.needs.append(layer)

    for name in ("outline", "outline.modules", "outline.modules.shell"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["outline.modules.shell"].Shell = Shell  # type: ignore[attr-defined]
    monkeypatch.setenv("FRIEZE_FOLDER", folder)
    exec(compile(OPENCUE.read_text(), str(OPENCUE), "exec"), {})
    return made


def test_opencue_layers_are_commands_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    render, export = layers(monkeypatch, "/renders/suns")
    assert export.needs == [render]
    for layer, flag in ((render, "--continue"), (export, "--overwrite")):
        program, *words = [w.replace("%{FRAME}", "5") for w in layer.arguments["command"]]
        assert program == "frieze"
        assert flag in words
        check(words)
    assert "/renders/suns/seed-%{FRAME}.zarr" in render.arguments["command"]
    # pyoutline leaves %{FRAME} of frame 0 as it is, which no seed is.
    (range_,) = re.findall(r"--range (\S+)", OPENCUE.read_text())
    assert int(range_.split("-")[0]) > 0


# All of them


@pytest.mark.parametrize("file", sorted(FOLDER.iterdir()), ids=lambda file: file.name)
def test_every_command_in_a_comment_names_the_file_and_fields_that_are(file: Path) -> None:
    text = file.read_text()
    assert f"configs/farms/{file.name}" in text
    for line in re.findall(r"^#\s+openjd run (.*)", text, re.MULTILINE):
        words = shlex.split(line)
        given = {w.split("=")[0] for a, w in itertools.pairwise(words) if a == "-p"}
        assert given <= {each["name"] for each in template()[KEY]}


def test_the_script_is_one_that_bash_reads() -> None:
    assert subprocess.run(["bash", "-n", str(SLURM)]).returncode == 0
    broken = SLURM.read_text().replace("fi\n", "\n", 1)
    run = subprocess.run(["bash", "-n"], input=broken, text=True, capture_output=True)
    assert run.returncode != 0
