"""Where a result comes from: code, versions, hardware, threads. Recorded beside every result, never part of its
identity."""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import subprocess
import sys
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

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
# Packages and modules that no number depends on: what a person sees. Presets spell out every field of their cells.
NOT_COMPUTING = ("cli", "serving", "checkpoints/inspect.py", "config/presets.py", "runs/sanity_check.py")
# Of a record, what no number depends on: the code has a hash of its own, and the platform names the kernel's build.
NO_NUMBER = ("git", "platform", "command")


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _code_version() -> str:
    """Hash of the package's syntax trees without docstrings: comments and formatting do not change it, code does."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.json")):  # the tokenizer decides what a prompt is
        digest.update(path.read_bytes())
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package).as_posix()
        if any(inside == name or inside.startswith(f"{name}/") for name in NOT_COMPUTING):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and _is_docstring(body[0]):
                node.body = body[1:]
        digest.update(f"{path.relative_to(package)}\n{ast.dump(tree)}\n".encode())
    return digest.hexdigest()[:12]


# Taken when the library is imported, and inherited by the processes forked from there: what runs, not what lies on the
# disk by the time that somebody asks.
CODE_VERSION = _code_version()


def provenance(
    device: str,
    simulator: str | None = None,
    compiled: bool = False,
    environment: dict[str, Any] | None = None,
    cached_vision: bool = False,
    ranks: str | None = None,
) -> dict[str, Any]:
    """Plain data; its content hash is the provenance id of a row. `simulator` are the backends, `environment` is what
    the environments that were evaluated in tell of themselves: their wrappers, their renderer. `ranks` tells the
    processes of a training by several."""
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
    told = {"compiled": compiled, "environment": environment, "cached_vision": cached_vision, "ranks": ranks}
    return record | {name: value for name, value in told.items() if value}


def provenance_id(record: dict[str, Any]) -> str:
    return hash_json(record)


def keep(record: dict[str, Any], folder: Path) -> str:
    """Writes the record to `folder/<id>.json`, if it is not there; returns the id."""
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
