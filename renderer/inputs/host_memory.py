"""Memory of this host: what there is, and what is free.

Linux's own figures: `MemAvailable` of proc(5), `memory.max` of control groups v2.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
MEMINFO = Path("/proc/meminfo")


def memory_bytes() -> int:
    """Memory of the machine, or of the container if that is less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.is_file() else "max"
    return min(physical, int(limit)) if limit.isdigit() else physical


def free_bytes() -> int:
    """Memory that can be had now without swapping, as far as the system says."""
    told = MEMINFO.read_text() if MEMINFO.is_file() else ""
    found = re.search(r"^MemAvailable:\s*(\d+) kB$", told, re.MULTILINE)
    return min(int(found[1]) * 1024 if found else memory_bytes(), memory_bytes())
