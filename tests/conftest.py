"""Worlds of ranks, poisoned memory and fixed seeds."""

from __future__ import annotations

from support import environment  # noqa: F401  first: sets what torch reads when it is imported

# isort: split
import functools
import gc
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from frieze.cluster.comm import run_threads
from support.poison import nan_filled
from support.processes import run_processes
from support.ray_fixture import (  # noqa: F401  fixtures for every test
    _fleets,
    _marked_for_ray,
    check_mark,
    empty_cluster,
    ray_cluster,
    ray_fleet,
)
from support.s3_server import s3  # noqa: F401  the same
from tolerances import AMPLE

# Marks of tests that are begun first, in this order.
LONG = ("ray", "by_name", "long")
GROUPS = "groups"  # what a process is told: the folder
FOLDER = pytest.StashKey[str]()
# What remembers what is installed on a path: no test changes that, and all of it is read for them.
INSTALLED = {"_others", "_version", "_versions"}
MANY_MODULES = 50  # imported since: what they made is worth to be passed over


_frozen: tuple[str, int] = ("", 0)  # the file of tests then, and how many modules there were


@pytest.fixture(autouse=True)
def _little_garbage(request: pytest.FixtureRequest) -> None:
    """A render collects garbage: it passes over what was imported and kept by the tests before.

    Diffusers and transformers come in when they are asked for: a million objects, half a second.
    """
    global _frozen
    file, num_modules = _frozen
    if str(request.path) != file or len(sys.modules) > num_modules + MANY_MODULES:
        gc.collect()
        gc.freeze()
        _frozen = str(request.path), len(sys.modules)


@pytest.fixture(autouse=True)
def _steady() -> Iterator[None]:
    """One thread per op, no grad, fixed seeds."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    with torch.no_grad():
        yield


@pytest.fixture(autouse=True)
def _forgetful(request: pytest.FixtureRequest) -> Iterator[None]:
    """What the renderer keeps for a process is kept of no renderer that a test has changed."""
    before = {id(kept): set(kept) for kept in _models()}
    yield
    if not {"monkeypatch", "nan_memory"} & set(request.fixturenames):
        return
    ours = [name for name in list(sys.modules) if name.startswith("frieze.")]
    for value in _caches(tuple(ours)):
        value.cache_clear()
    for kept in _models():
        for key in set(kept) - before.get(id(kept), set()):
            del kept[key]


@functools.lru_cache(1)
def _caches(modules: tuple[str, ...]) -> list[Any]:
    """What these modules have that remembers results: some thousand names are looked at."""
    values = [value for name in modules for value in list(vars(sys.modules[name]).values())]
    remembering = [value for value in values if hasattr(value, "cache_clear")]
    return [value for value in remembering if value.__name__ not in INSTALLED]


def _models() -> Iterator[dict[Any, Any]]:
    """What this process has loaded, with weights and without."""
    for module, name in (
        ("worker.model_cache", "_LOADED"),
        ("planning.meta_render", "_SKELETONS"),
    ):
        if found := sys.modules.get(f"frieze.renderer.{module}"):
            yield getattr(found, name)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device: make test-gpu")
    check_mark(item)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A file marked `by_name` is sorted by the parameter `name` of its tests, so that what one of
    them loads is at hand for the next, and each name may run in another process.
    """
    places = [place for place, item in enumerate(items) if item.get_closest_marker("by_name")]
    named = sorted((items[place] for place in places), key=_name)
    for place, item in zip(places, named, strict=True):
        items[place] = item
    if told := getattr(config, "workerinput", None):
        # The long ones first, so that both processes end together.
        items.sort(key=lambda item: [not item.get_closest_marker(mark) for mark in LONG])
        file = Path(told[GROUPS]) / told["workerid"]
        file.write_text(json.dumps({item.nodeid: _group(item) for item in items}))


def _name(item: Any) -> str:
    """The test's parameter `name`, where its file is sorted by that."""
    return str(item.callspec.params["name"]) if item.get_closest_marker("by_name") else ""


def _group(item: pytest.Item) -> str:
    """What runs in one process: Ray's tests, a file's, or those of one name in a file `by_name`."""
    if item.get_closest_marker("ray"):
        return "ray"
    return f"{item.path}{_name(item)}"


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Each process writes down there which group its tests are of: marks stay in a process."""
    if not node.config.stash.get(FOLDER, None):
        folder = tempfile.TemporaryDirectory()
        node.config.stash[FOLDER] = folder.name
        node.config.add_cleanup(folder.cleanup)
    node.workerinput[GROUPS] = node.config.stash[FOLDER]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Files run side by side, each in one process; all that need Ray in the same one.

    Not by xdist's own groups: it writes them into an attribute that pytest 9.2 no longer reads.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        @functools.cached_property
        def groups(self) -> dict[str, str]:
            found: dict[str, str] = {}
            for file in Path(config.stash[FOLDER]).iterdir():
                found |= json.loads(file.read_text())
            return found

        def _split_scope(self, nodeid: str) -> str:
            return self.groups[nodeid]

    return Groups(config, log)


@pytest.fixture(scope="module")
def kept_encoders() -> Iterator[None]:
    """Renders of a file of tests load what encodes their prompts once, as those of a batch do."""
    from frieze.renderer.models import loading

    with loading.kept_encoders():
        yield


@pytest.fixture
def nan_memory() -> Iterator[None]:
    """Fresh uninitialised floating memory holds NaN."""
    with nan_filled():
        yield


@pytest.fixture(params=["free", "turns"])
def world(request: pytest.FixtureRequest) -> Callable[..., Callable[..., list[Any]]]:
    """`world(n)(function, *args)` runs function(comm, *args) on n threads; results by rank."""
    turns = request.param == "turns"

    def of(num_ranks: int, timeout: float = AMPLE) -> Callable[..., list[Any]]:
        def run(function: Callable[..., Any], *args: Any) -> list[Any]:
            return run_threads(function, num_ranks, *args, timeout=timeout, turns=turns)

        return run

    return of


@pytest.fixture
def gloo_world() -> Callable[..., list[Any]]:
    """`gloo_world(n, function, *args)` runs a module-level function(comm, *args) in n processes."""
    return run_processes
