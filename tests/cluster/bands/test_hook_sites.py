"""Networks that many renders share get every hook once."""

from __future__ import annotations

import gc
import weakref

from torch import nn

from frieze.cluster.bands import HookSites
from frieze.cluster.comm import Comm, run_threads


def test_a_site_of_a_network_is_hooked_once_whoever_asks() -> None:
    sites, network, calls = HookSites(), nn.ReLU(), []

    def rank(comm: Comm) -> None:
        sites.hook(network, {name: lambda name=name: calls.append(name) for name in "ab"})

    run_threads(rank, 4)
    assert sorted(calls) == ["a", "b"]
    sites.hook(nn.ReLU(), {"a": lambda: calls.append("other")})
    sites.hook(network, {"c": lambda: calls.append("c")})
    assert calls[2:] == ["other", "c"]


def test_a_network_is_not_kept_alive() -> None:
    sites, network = HookSites(), nn.ReLU()
    sites.hook(network, {"a": lambda: None})
    alive = weakref.ref(network)
    del network
    gc.collect()
    assert alive() is None
