"""Processor seconds of Frieze's start: help, a plan, a render of one step, and what they go into.

Prints two Markdown tables. The time is that of all threads of a process, user and system, the
least of `--runs`: other work on the machine changes it less than a clock's, yet a core whose other
half is busy is slower, so compare with `import torch`, and with diffusers' own pipeline, which
draws the same picture of the same files in a few lines. What it goes into are the modules that
Python imports, by library, each without those that it imports itself (`-X importtime`). Pictures
are looked at before anything is told: a render that drew nothing has no time.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import zarr
from PIL import Image

from frieze.renderer.checkpoints.shipped import SHIPPED

SMALL = ("a red sun", "--size", "256x256", "--model", "demo", "--device", "cpu")
RENDER = ("render", *SMALL, "--local", "--num-inference-steps", "1", "--overwrite", "--out")
CASES = {
    "python": ("-c", "pass"),
    "from frieze.renderer import RenderSpec": ("-c", "from frieze.renderer import RenderSpec"),
    "frieze --help": ("-m", "frieze.renderer", "--help"),
    "frieze plan": ("-m", "frieze.renderer", "plan", *SMALL),
    "frieze plan --json": ("-m", "frieze.renderer", "plan", *SMALL, "--json"),
    "import torch": ("-c", "import torch"),
    "frieze render, one step": ("-m", "frieze.renderer", *RENDER),
}
BARE = """
import sys
import torch
from diffusers import FluxPipeline
pipe = FluxPipeline.from_pretrained(sys.argv[1], torch_dtype=torch.float32)
pipe.set_progress_bar_config(disable=True)
pipe("a red sun", height=256, width=256, num_inference_steps=1).images[0].save(sys.argv[2])
"""
DIFFUSERS = "diffusers, one step"
IMPORT = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")
# Parts of torch that it imports only when somebody asks for them.
LATE = ("torch._dynamo", "torch._inductor", "torch.distributed")
LEAST = 0.05  # seconds of a library that has a row of its own


def main() -> None:
    """All cases in turns, and then each once more with its imports timed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--python", default=sys.executable, help="that of another Frieze")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "a.zarr"
        commands = {
            name: [told.python, *words, *([str(out)] if words[-1] == "--out" else [])]
            for name, words in CASES.items()
        }
        bare = Path(folder) / "a.png"
        commands[DIFFUSERS] = [told.python, "-c", BARE, str(SHIPPED["demo"]), str(bare)]
        seconds = {name: [spent(words) for words in [each]] for name, each in commands.items()}
        check(np.moveaxis(zarr.open_group(out, mode="r")["0"][:], 0, -1))
        check(np.asarray(Image.open(bare)))
        for _ in range(told.runs - 1):
            for name, words in commands.items():
                seconds[name].append(spent(words))
        imports = {name: imported(words) for name, words in commands.items()}
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {load}, least of {told.runs} runs")
    print("\n| command | processor | modules |\n|---|---|---|")
    for name, each in seconds.items():
        print(f"| `{name}` | {min(each):.2f} s | {sum(imports[name][1].values())} |")
    print("\n| of them, imports of | " + " | ".join(f"`{name}`" for name in ROWS) + " |")
    print("|---|" + "---|" * len(ROWS))
    libraries = Counter[str]()
    for name in ROWS:
        libraries |= imports[name][0]
    for library, most in libraries.most_common():
        if most >= LEAST:
            times = " | ".join(f"{imports[name][0][library]:.2f} s" for name in ROWS)
            print(f"| {library} | {times} |")


ROWS = ("frieze --help", "frieze plan", "frieze render, one step", DIFFUSERS)


def spent(words: list[str]) -> float:
    """Processor seconds of a process and its children; raises where it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def imported(words: list[str]) -> tuple[Counter[str], Counter[str]]:
    """Seconds of importing, and the number of modules, by library."""
    timed = [words[0], "-X", "importtime", *words[1:]]
    found = subprocess.run(timed, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    seconds, modules = Counter[str](), Counter[str]()
    for micros, name in IMPORT.findall(found.stderr.decode(errors="replace")):
        library = next((part for part in LATE if name.startswith(part)), name.partition(".")[0])
        library = "the standard library" if library in sys.stdlib_module_names else library
        seconds[library] += int(micros) / 1e6
        modules[library] += 1
    return seconds, modules


def check(pixels_HWC: np.ndarray) -> None:
    """Raises where a picture is not whole, or of one colour."""
    if pixels_HWC.shape != (256, 256, 3) or pixels_HWC.min() == pixels_HWC.max():
        raise SystemExit(f"no picture: {pixels_HWC.shape}")


if __name__ == "__main__":
    main()
