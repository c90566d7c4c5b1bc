"""A server under load that is killed in the middle: 50 jobs of 8 clients, none lost, none twice.

Clients are OpenAI's, each with an Idempotency-Key for every picture that it wants; they send again
what broke off. `frieze serve` is a process of its own, ended by SIGKILL when a third of the jobs
are done, and again at two thirds. Writes tests/bench/results/serve_load.md; with --jobs of another
number it prints that and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import openai

from frieze.renderer.monitoring import run_log

RESULTS = Path(__file__).parent / "results" / "serve_load.md"
CLIENTS, JOBS, STEPS, SIDE = 8, 50, 4, 128
KILLS = (1 / 3, 2 / 3)
PRESET = "model: demo\nheight: 128\nwidth: 128\nmethod: none\nnum_inference_steps: 4\n"
TOKEN = "a-token-of-the-benchmark"


class Served:
    """`frieze serve` on a folder, as a process that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.folder, self.url = folder, f"http://127.0.0.1:{self.port}/v1"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it answers."""
        words = ["serve", "--preset", str(self.folder.parent / "small.yaml"), "--local"]
        words += ["--folder", str(self.folder), "--port", str(self.port), "--device", "cpu", "-q"]
        env = {**os.environ, "FRIEZE_TOKENS": TOKEN, "OMP_NUM_THREADS": "1"}
        command = [str(Path(sys.executable).with_name("frieze")), *words]
        self.process = subprocess.Popen(command, env=env)
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                assert self.process.poll() is None, "the server ended"
                time.sleep(0.1)
            else:
                return

    def end(self, number: int) -> float:
        """Seconds until it has ended after a signal."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait()
        return time.monotonic() - began

    def done(self) -> int:
        """Jobs that are completed, by their records."""
        records = [json.loads(path.read_text()) for path in self.folder.glob("job_*/job.json")]
        return sum(record["state"] == "completed" for record in records)


class Client(threading.Thread):
    """One client: asks for its pictures one after another, some waiting, some by jobs."""

    def __init__(self, number: int, url: str, jobs: int) -> None:
        super().__init__(name=f"client {number}")
        self.numbers = range(number, jobs, CLIENTS)
        self.api = openai.OpenAI(base_url=url, api_key=TOKEN, max_retries=0, timeout=600)
        self.seconds: list[float] = []
        self.sizes: dict[int, int] = {}
        self.again = 0

    def run(self) -> None:
        for number in self.numbers:
            began = time.monotonic()
            while True:
                try:
                    self.sizes[number] = self.picture(number)
                    break
                except (openai.APIConnectionError, openai.InternalServerError):
                    self.again += 1
                    time.sleep(0.5)
            self.seconds.append(time.monotonic() - began)

    def picture(self, number: int) -> int:
        """Letters of the picture's base64."""
        body = {"seed": number, "steps": STEPS, "priority": number % 3}
        headers = {"Idempotency-Key": f"picture {number}"}
        drawn = self.api.images.generate(
            prompt="a red sun over blue mountains at dusk",
            size=f"{SIDE}x{SIDE}",
            extra_body=body,
            extra_headers=headers,
        )
        assert drawn.data is not None
        return len(drawn.data[0].b64_json or "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=JOBS)
    jobs = parser.parse_args().jobs
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "small.yaml").write_text(PRESET)
        served = Served(Path(name) / "served")
        began = time.monotonic()
        served.start()
        clients = [Client(number, served.url, jobs) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        kills = []
        for share in KILLS:
            while served.done() < share * jobs:
                time.sleep(0.05)
            served.end(signal.SIGKILL)
            kills.append(served.done())
            served.start()
        for client in clients:
            client.join()
        seconds = time.monotonic() - began
        stop = served.end(signal.SIGTERM)
        text = report(served.folder, clients, jobs, kills, seconds, stop)
        if jobs == JOBS:
            RESULTS.write_text(text, encoding="utf-8")
        print(text)


def counts(folder: Path) -> dict[str, Any]:
    """What the folder says: jobs, pictures that were done, and steps that were drawn."""
    jobs = [json.loads(path.read_text()) for path in sorted(folder.glob("job_*/job.json"))]
    steps: Counter[tuple[str, int, int]] = Counter()
    done: Counter[str] = Counter()
    for job in jobs:
        for line in (folder / job["id"] / "frieze" / "journal.jsonl").read_text().splitlines():
            event = json.loads(line)
            done[job["id"]] += event["event"] == "item" and event["state"] == "done"
        for line in run_log.read(folder / job["id"] / "0.zarr"):
            if line["event"] == "step":
                steps[job["id"], line["stage"], line["step"]] += 1
    return {
        "jobs": len(jobs),
        "states": dict(Counter(job["state"] for job in jobs)),
        "keys": len({job["key"] for job in jobs}),
        "twice": sum(number > 1 for number in done.values()),
        "steps": sum(steps.values()),
        "again": sum(number - 1 for number in steps.values()),
    }


def report(
    folder: Path, clients: list[Client], jobs: int, kills: list[int], seconds: float, stop: float
) -> str:
    found = counts(folder)
    waits = sorted(each for client in clients for each in client.seconds)
    got = {number: size for client in clients for number, size in client.sizes.items()}
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    rows = [
        ("pictures that clients wanted, and got", f"{jobs}, {sum(s > 1000 for s in got.values())}"),
        ("jobs, by their state", f"{found['jobs']}, {found['states']}"),
        ("jobs lost", jobs - found["keys"]),
        ("pictures drawn twice", found["twice"]),
        ("steps drawn, of " + str(jobs * STEPS), found["steps"]),
        ("of these again, because the kill came before their state was kept", found["again"]),
        (
            "requests that met no server, or broke off, and were sent again",
            sum(client.again for client in clients),
        ),
        ("done at each kill", ", ".join(map(str, kills))),
        ("seconds in all, with three starts", f"{seconds:.1f}"),
        (
            "seconds of a request, median and most",
            f"{statistics.median(waits):.1f}, {waits[-1]:.1f}",
        ),
        ("seconds until it ended after SIGTERM", f"{stop:.2f}"),
    ]
    lines = [
        "# A server under load, killed in the middle",
        "",
        f"`.venv/bin/python tests/bench/serve_load.py` on {platform.machine()}, {os.cpu_count()} "
        f"cores shared with other work (load {load}).",
        f"{jobs} jobs of {CLIENTS} clients (OpenAI's own, one request of each at a time, with an "
        f"`Idempotency-Key`), the demo model at {SIDE} x {SIDE} in {STEPS} steps, `--local`",
        "on one worker; the server is ended by SIGKILL and started again, twice.",
        "",
        "| what | found |",
        "|---|---|",
    ]
    return "\n".join([*lines, *(f"| {what} | {value} |" for what, value in rows), ""])


if __name__ == "__main__":
    main()
