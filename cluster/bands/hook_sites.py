"""Hooks on the layers of networks that many renders share, each put on once."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Mapping

from torch import nn


class HookSites:
    """Where in which networks one kind of hook is, for as long as these live; threads share it."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._hooked: weakref.WeakKeyDictionary[nn.Module, set[Hashable]] = (
            weakref.WeakKeyDictionary()
        )

    def hook(self, network: nn.Module, sites: Mapping[Hashable, Callable[[], object]]) -> None:
        """Call what hooks each site of the network, unless it was called for that site before."""
        with self._turn:
            hooked = self._hooked.setdefault(network, set())
            for site, register in sites.items():
                if site not in hooked:
                    register()
                    hooked.add(site)
