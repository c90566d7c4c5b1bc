"""How soon a tile of `frieze view` is there: of a large store, finished or half drawn.

Prints a Markdown table. A server of its own is asked over HTTP, by as many connections as a browser
opens, for tiles at random, once its pixels are found to be the store's. `processor` is what the
server computes for each, `load` how many processes wanted to run: on a machine that does other work
the former tells more. The picture is gradients with grain, which no PNG makes small.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import queue
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from frieze.renderer.codecs.tile_pyramid import TILE
from frieze.renderer.store.layout import StoreLayout
from frieze.renderer.store.store import Store

BLOCK = 512
CONNECTIONS = 6  # that a browser opens to one host
PROGRAM = "from frieze.renderer.cli.app import main; main()"


def strip(top: int, side: int) -> np.ndarray:
    """Rows [BLOCK, W, 3] of the picture."""
    rng = np.random.default_rng(top)
    y_HW, x_HW = np.mgrid[top : top + BLOCK, :side].astype(np.float32) / side
    planes_HWC = np.stack([y_HW, x_HW, np.sin(9 * y_HW * x_HW) / 2 + 0.5], axis=-1) * 250
    grain_HWC = rng.normal(0, 1.5, planes_HWC.shape).astype(np.float32)
    return np.clip(planes_HWC + grain_HWC, 0, 255).astype(np.uint8)


def make(path: Path, side: int, rows: int) -> Store:
    """A store of which so many rows are drawn."""
    store = Store.create(path, StoreLayout(side, side, (BLOCK, BLOCK)), fingerprint="", run={})
    for top in range(0, rows, BLOCK):
        store.journal.append({"event": "block", "ids": store.write_rows(top, strip(top, side))})
    if rows == side:
        store.finish()
    return store


class Server:
    """`frieze view` of a folder, as a process of its own."""

    def __init__(self, folder: Path) -> None:
        words = [sys.executable, "-c", PROGRAM, "view", str(folder), "--port", "0", "--json"]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        url = json.loads(self.process.stdout.readline())["url"]
        self.port = int(url.rsplit(":", 1)[1].strip("/"))

    def stop(self) -> None:
        """As a person does."""
        self.process.send_signal(signal.SIGINT)
        self.process.communicate()

    @property
    def peak_mib(self) -> float:
        """Most memory that it ever held."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (each for each in text.splitlines() if each.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    @property
    def processor_seconds(self) -> float:
        """What it has computed so far, on all cores."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def get(self, path: str, connection: http.client.HTTPConnection | None = None) -> bytes:
        """An answer's body; exits where it is not there."""
        connection = connection or http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            sys.exit(f"{path}: {answer.status} {body[:200]!r}; no timing")
        return body

    def seconds(self, paths: list[str]) -> list[float]:
        """Of every path, from its request to its last byte, `CONNECTIONS` at a time."""
        waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        for path in paths:
            waiting.put(path)
        found: list[float] = []

        def ask() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port)
            while True:
                try:
                    path = waiting.get_nowait()
                except queue.Empty:
                    return
                began = time.perf_counter()
                self.get(path, connection)
                found.append(time.perf_counter() - began)

        threads = [threading.Thread(target=ask) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found


def about(server: Server, name: str) -> dict[str, Any]:
    """What the page is told of a store."""
    stores = json.loads(server.get("/state.json"))["stores"]
    return next(each for each in stores if each["name"] == name)


def address(store: dict[str, Any], level: int, column: int, row: int) -> str:
    return f"/stores/{store['key']}/0_files/{level}/{column}_{row}.png"


def check(server: Server, made: Store, store: dict[str, Any]) -> None:
    """No number for what is wrong."""
    body = server.get(address(store, store["top"], 1, 1))
    found = np.asarray(Image.open(io.BytesIO(body)))[..., :3]
    if not np.array_equal(found, made.read_rows(TILE, 2 * TILE)[:, TILE : 2 * TILE]):
        sys.exit("the pixels differ; no timing")


def measure(label: str, server: Server, paths: list[str]) -> None:
    """Print one row."""
    before = server.processor_seconds
    seconds = sorted(server.seconds(paths))
    computed = 1000 * (server.processor_seconds - before) / len(paths)
    # A small picture has one tile of some kinds.
    cuts = statistics.quantiles((seconds * 2)[: max(2, len(seconds))], n=20, method="inclusive")
    shown = " | ".join(f"{1000 * value:.0f} ms" for value in (cuts[9], cuts[18], seconds[-1]))
    memory, load = f"{server.peak_mib:.0f} MiB", os.getloadavg()[0]
    print(
        f"| {label} | {len(paths)} | {shown} | {computed:.0f} ms | {memory} | {load:.0f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=16384)
    parser.add_argument("--tiles", type=int, default=300)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, side = Path(name), told.side
        stores = {
            "whole.zarr": make(folder / "whole.zarr", side, side),
            "half.zarr": make(folder / "half.zarr", side, side // 2),
        }
        print(f"{side} x {side}, 8 bit, blocks of {BLOCK}, tiles of {TILE}, ", end="")
        print(f"{CONNECTIONS} connections\n")
        print("| tiles | of them | median | p95 | longest | processor | memory | load |")
        print(f"|{'---|' * 8}")
        for name, made in stores.items():
            server = Server(folder)
            try:
                bench(server, made, about(server, name), told.tiles)
            finally:
                server.stop()


def bench(server: Server, made: Store, store: dict[str, Any], count: int) -> None:
    check(server, made, store)
    rng, top, state = random.Random(0), store["top"], store["state"]
    rows = made.layout.height // TILE // (1 if state == "done" else 2)
    columns = made.layout.width // TILE
    places = [(x, y) for x in range(columns) for y in range(rows)]
    first = [address(store, level, 0, 0) for level in range(max(top - 5, 8), 7, -1)]
    measure(f"{state}: all of the picture, the first time", server, first)
    measure(f"{state}: all of it again", server, first)
    full = [address(store, top, *place) for place in rng.sample(places, min(count, len(places)))]
    measure(f"{state}: full size, the first time", server, full)
    measure(f"{state}: full size again", server, full)
    half = sorted({(x // 4, y // 4) for x, y in places})
    measure(f"{state}: a quarter of the size", server, [address(store, top - 2, *p) for p in half])


if __name__ == "__main__":
    main()
