"""Cores and devices that this process may use. Every default number of processes follows the cores."""

from __future__ import annotations

import os
from pathlib import Path

from muvla.errors import MuvlaError

CGROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its container; at least 1."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = (CGROUPS / "cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup, or another version of cgroups
        pass
    return cores


def choose_device(name: str = "auto") -> str:
    """Resolves `auto` to the GPU, or to the CPU where no GPU is present; raises MuvlaError for a missing GPU."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise MuvlaError("--device", got=name, expected="a CUDA device", remedy="use --device cpu, or install a driver")
    return name


def count_gpus() -> int:
    """GPUs that this process may use."""
    import torch

    return torch.cuda.device_count()
