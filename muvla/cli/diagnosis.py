"""Findings about an installation: versions, missing parts, and the remedy for each missing part.

Nothing outside a check imports torch or a simulator, so that a broken installation is diagnosed too.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

NEEDED_EXTRA = "sim"  # the dependency group that `muvla doctor --sim` asks for
FREE_DISK = 2**30  # bytes; the demo writes about 0.3 GiB
REINSTALL = "run `make setup`"
RENDER = "on Debian or Ubuntu run `sudo bash scripts/install-system-packages.sh` (Mesa ≥ 24.3), or install a GPU driver"


@dataclass(frozen=True)
class Finding:
    """One checked part of the installation."""

    name: str
    ok: bool
    what: str  # the version, or the fault
    remedy: str = ""
    needed: bool = True

    def text(self) -> str:
        mark = "ok     " if self.ok else "MISSING" if self.needed else "absent "
        return f"{mark}  {self.name}: {self.what}" + ("" if self.ok else f"\n         → {self.remedy}")


def diagnose(simulator_needed: bool) -> Iterator[Finding]:
    """Every finding, as soon as its check ends."""
    yield _python()
    for requirement in (Requirement("muvla"), *requirements()):
        yield _package(requirement, True, REINSTALL)
    for check in (_tokenizer, _device, _attention, _leak_test, _disk, _locks):
        yield check()
    yield from _suites(simulator_needed)
    yield from _assets()


def _python() -> Finding:
    version = sys.version_info
    return Finding(
        "Python", version[:2] == (3, 11), sys.version.split()[0], "use Python 3.11 (`make PYTHON=python3.11 …`)"
    )


def requirements(extra: str = "") -> list[Requirement]:
    """The requirements of muvla on this platform: the base ones, or those of an extra."""
    try:
        declared = [Requirement(text) for text in metadata.requires("muvla") or []]
    except metadata.PackageNotFoundError:  # the finding about muvla itself reports this
        return []
    applying = [item for item in declared if item.marker is None or item.marker.evaluate({"extra": extra})]
    return [item for item in applying if bool(extra) == ("extra" in str(item.marker))]


def _package(requirement: Requirement, needed: bool, remedy: str) -> Finding:
    name = requirement.name
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, False, "not installed", remedy, needed)
    fits = requirement.specifier.contains(version, prereleases=True)
    wanted = "" if fits else f", but {requirement.specifier} is needed"
    return Finding(name, fits, version + wanted, remedy, needed)


def _attempt(name: str, check: Callable[[], str], remedy: str) -> Finding:
    try:
        return Finding(name, True, check())
    except Exception as error:  # every fault becomes a finding
        return Finding(name, False, f"{type(error).__name__}: {error}", remedy)


def _tokenizer() -> Finding:
    def check() -> str:
        from muvla.models.prompts import built_in_prompts

        return f"{built_in_prompts().tokenizer.get_vocab_size()} tokens"

    return _attempt("tokenizer", check, REINSTALL)


def _device() -> Finding:
    def check() -> str:
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU (no CUDA device)"

    return _attempt("device", check, REINSTALL)


def _attention() -> Finding:
    def check() -> str:
        import torch

        from muvla.models.backends import BACKENDS, obstacle

        device = "cuda" if torch.cuda.is_available() else "cpu"
        problems = {name: obstacle(name, device, torch.bfloat16) for name in BACKENDS}
        usable = ", ".join(name for name, problem in problems.items() if problem is None)
        return "; ".join(
            [usable, *(f"{name} needs {problem.expected}" for name, problem in problems.items() if problem)]
        )

    return _attempt("attention", check, REINSTALL)


def _leak_test() -> Finding:
    def check() -> str:
        import torch

        from muvla.checkpoints.build import build_policy
        from muvla.config import Cell, DataConfig, DatasetConfig, MemoryConfig, ModelConfig, TaskConfig
        from muvla.config.sizes import get_size
        from muvla.models.leak_test import leak_test
        from muvla.models.policy import Interface

        data = DataConfig(DatasetConfig(TaskConfig("RecallPosition3-v0")))
        leaks = {}
        for guard in ("context", "full"):
            cell = Cell(ModelConfig(get_size("tiny"), guard=guard), data, MemoryConfig("tokens", 4))
            policy = build_policy(cell, Interface(cameras=2, proprio_dim=2, action_dim=2, text=8, text_padded=True))
            ids, lengths = policy.encode_text(["touch it", "touch the marked disc"])
            images = torch.zeros(2, 2, 3, 32, 32, dtype=torch.uint8)
            encoded = policy.encode(images, torch.zeros(2, 2), ids, lengths)
            leaks[guard] = leak_test(policy, encoded, policy.memory.init_state(2))
        if leaks["full"] == 0:
            raise RuntimeError("the leak test does not see the leak of guard `full`")
        return f"leak {leaks['context']} under `context`, {leaks['full']:.2g} under `full`"

    return _attempt("leak test", check, "report this as a bug")


def _suites(simulator_needed: bool) -> list[Finding]:
    """Play every suite without a simulator. Check packages and renderer of the others, once per extra."""
    from muvla.envs.registry import suites

    findings: list[Finding] = []
    by_extra: dict[str, list] = {}
    for suite in suites():
        if suite.extra or suite.requirements:
            by_extra.setdefault(suite.extra, []).append(suite)
        else:
            findings.append(_played(suite))
    for extra, several in by_extra.items():
        needed = simulator_needed and extra == NEEDED_EXTRA
        texts = dict.fromkeys(text for suite in several for text in suite.requirements)
        wanted = [*(Requirement(text) for text in texts), *(requirements(extra) if extra else [])]
        packages = [_package(requirement, needed, several[0].install) for requirement in wanted]
        if all(package.ok for package in packages):
            findings += [*packages, _renderer(several[0].name, needed)]
        else:
            findings += packages if needed else [package for package in packages if not package.ok]
    return findings


def _played(suite) -> Finding:
    def check() -> str:
        from muvla.config import TaskConfig
        from muvla.envs.registry import make_env

        for name in suite.tasks():
            make_env(TaskConfig(name)).reset(seed=0)
        return ", ".join(suite.tasks())

    return _attempt(f"{suite.name} suite", check, REINSTALL)


def _assets() -> list[Finding]:
    """The files that simulators need and no package brings."""
    from muvla.envs.assets import content
    from muvla.envs.registry import asset_sets

    findings = []
    for assets in asset_sets().values():
        name, missing = f"{assets.name} assets", assets.missing()
        if missing:
            finding = Finding(name, False, f"no {missing}", assets.remedy)
        else:
            finding = _attempt(name, lambda assets=assets: str(content(assets)), assets.remedy)
        findings.append(replace(finding, needed=False))
    return findings


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    return Finding("disk", free > FREE_DISK, f"{free / 2**30:.1f} GiB free here", "free at least 1 GiB")


def _locks() -> Finding:
    """How processes exclude each other in `runs`, or here before a first run."""

    def check() -> str:
        from muvla.utils.locks import describe_locks

        return describe_locks(next(folder for folder in (Path("runs"), Path.cwd()) if folder.is_dir()))

    return _attempt("locks", check, "choose a folder on another file system, for example --runs on a local disk")


def _renderer(suite: str, needed: bool) -> Finding:
    """The renderer of a suite, checked in another process, because a broken driver kills its process."""
    code = f"from muvla.envs.registry import get_suite; print(get_suite({suite!r}).renderer())"
    name = f"renderer of {suite}"
    try:
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    except subprocess.TimeoutExpired:
        return Finding(name, False, "no picture within 300 s", RENDER, needed)
    last = (run.stdout if run.returncode == 0 else run.stderr).strip().splitlines()
    return Finding(name, run.returncode == 0, last[-1] if last else f"exit code {run.returncode}", RENDER, needed)
