"""How many cores there are for this process; every default number of processes follows it."""

from __future__ import annotations

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its container; at least 1."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = (CGROUPS / "cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # another system, or none
        pass
    return cores
