"""The provenance of a result: code, versions, hardware, threads. It is recorded beside every result, and is never part
of its identity."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from muvla.utils.code_version import CODE_VERSION, member_versions
from muvla.utils.io import hash_json, write_json

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "flash-attn",
    "bitsandbytes",
    "numpy",
    "gymnasium",
    "mani-skill",
    "sapien",
    "mikasa-robo-suite",
    "hf-libero",
    "robosuite",
    "bddl",
    "mujoco",
)
# Keys of a record that no number depends on. The code has a key for its hash; the platform names the kernel's build.
NO_NUMBER = ("git", "platform", "command")


def provenance(
    device: str,
    simulator: str | None = None,
    compiled: bool = False,
    environment: dict[str, Any] | None = None,
    cached_vision: bool = False,
    one_pass: bool = False,
    ranks: str | None = None,
    members: Iterable[str] = (),
) -> dict[str, Any]:
    """The provenance of what this process computes. The content hash of the record is the provenance id of a row.

    Args:
        device: torch device.
        simulator: physics and render backends; None without a simulator.
        compiled: whether the step is compiled.
        environment: what the evaluated environments report of themselves: wrappers, renderer, assets.
        cached_vision: whether features of the vision towers came from a cache that changes rounding.
        one_pass: whether a training made one pass of the language model per window.
        ranks: the processes of a training by several.
        members: modules of the mechanism, suites, interventions and probes that the computation uses
            (`muvla.evaluation.members`); those that are in the core's code version are left out.

    Returns:
        Plain data.
    """
    record = {
        "code": CODE_VERSION,
        "git": _git(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": processor(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "threads": torch.get_num_threads(),
        "simulator": simulator,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    where_set = {
        "compiled": compiled,
        "environment": environment,
        "cached_vision": cached_vision,
        "one_pass": one_pass,
        "ranks": ranks,
        "members": member_versions(members),
    }
    return record | {name: value for name, value in where_set.items() if value}


def provenance_id(record: dict[str, Any]) -> str:
    return hash_json(record)


def keep(record: dict[str, Any], folder: Path) -> str:
    """Writes the record to `folder/<id>.json`, unless the file exists, and returns the id."""
    identity = provenance_id(record)
    path = folder / f"{identity}.json"
    if not path.exists():
        write_json(path, record)
    return identity


def hardware_line() -> str:
    """One line for captions: processor, cores, memory, GPU."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {gpu}"


@lru_cache(maxsize=1)
def processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """Commit of the checkout that holds this package; None for an installed copy."""
    state = _git()
    return None if state is None else state["commit"]


@lru_cache(maxsize=1)
def _git() -> dict[str, Any] | None:
    """Commit and dirty state of the checkout that holds this package; None for an installed copy."""

    def git(*args: str) -> str | None:
        run = subprocess.run(["git", *args], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
        return run.stdout.strip() if run.returncode == 0 else None

    try:
        commit = git("rev-parse", "HEAD")
    except FileNotFoundError:
        return None
    return None if commit is None else {"commit": commit, "dirty": bool(git("status", "--porcelain", "--", "."))}
