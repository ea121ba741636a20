"""Shared fixtures: one small dataset, one small cell; and what a missing simulator or GPU means."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import lru_cache, partial

import pytest
import torch

from analysis.report import folder
from helpers.release_size import SIZE
from helpers.released_runs import PROTOCOL, Variant
from helpers.slurm import running_slurm
from helpers.studies import DATASET, FEW, STUDY
from muvla.checkpoints.build import build_policy, get_prompts
from muvla.config import BudgetConfig, Cell, DataConfig, MemoryConfig, ModelConfig, no_memory, tbptt
from muvla.config.serialization import replace
from muvla.config.sizes import SIZES, get_size
from muvla.data.collect import collect
from muvla.data.normalization import Statistics
from muvla.envs.registry import make_env
from muvla.evaluation.catalog import declared_protocols
from muvla.evaluation.context import EvaluationContext
from muvla.probes.base import Subject
from muvla.training.interface import get_interface
from muvla.training.trainer import Trainer


def pytest_configure(config):
    torch.set_num_threads(1)  # bit-for-bit tests must not depend on how work is cut for threads
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


HEAVY = {"browser", "paper", "cluster", "peers", "fuzz"}  # markers of `make test-heavy`


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A heavy test runs by request alone, so under CI a skipped one is a failure."""
    report = yield
    if os.environ.get("CI") and report.skipped and HEAVY & {mark.name for mark in item.iter_markers()}:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"under CI a heavy test must run: {reason}"
    return report


@lru_cache(maxsize=1)
def simulator_problem() -> str | None:
    """Why the simulator cannot run here, in a process of its own; None if it can."""
    code = "from muvla.envs.mikasa import MikasaEnv; MikasaEnv('RememberColor3-VLA-v0').reset(seed=0)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return None if run.returncode == 0 else (run.stderr.strip() or f"exit code {run.returncode}").splitlines()[-1]


@lru_cache(maxsize=1)
def libero_problem() -> str | None:
    """The same of LIBERO: its package, and a renderer."""
    code = (
        "from importlib.util import find_spec; assert find_spec('libero'), 'LIBERO is not installed'; "
        "import mujoco; mujoco.GLContext(16, 16).make_current()"
    )
    env = {"MUJOCO_GL": "egl"} | os.environ
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    return None if run.returncode == 0 else (run.stderr.strip() or f"exit code {run.returncode}").splitlines()[-1]


@pytest.fixture
def libero_assets(monkeypatch):
    """The part of LIBERO's assets that the shared test data hold, with stand-ins: task 0 of three suites."""
    if "MUVLA_TEST_DATA" not in os.environ:
        pytest.skip("MUVLA_TEST_DATA is not set")
    folder = os.path.join(os.environ["MUVLA_TEST_DATA"], "libero_assets")
    assert os.path.exists(folder), "MUVLA_TEST_DATA is set, and must hold it"
    monkeypatch.setenv("MUVLA_LIBERO_ASSETS", folder)


@pytest.fixture(autouse=True)
def _needs(request):
    """A test marked `sim` is skipped with the reason where the simulator cannot run, `sim("libero")` where LIBERO
    cannot; under CI that is a failure. And every test starts from the same global seed, so that one that fails fails
    again."""
    torch.manual_seed(0)
    if request.node.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if request.node.get_closest_marker("gpu"):
        torch.compiler.reset()  # torch compiles a function for eight shapes at most, and here every test has its own
    simulator = request.node.get_closest_marker("sim")
    if simulator and (problem := libero_problem() if simulator.args == ("libero",) else simulator_problem()):
        if os.environ.get("CI"):
            pytest.fail(f"under CI the simulator must run: {problem}")
        pytest.skip(f"the simulator cannot run here: {problem}")


@pytest.fixture(scope="session")
def data_root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def store(data_root):
    return collect(DATASET, data_root)


@pytest.fixture(scope="session")
def base() -> Cell:
    """K = W = 8, m = 4, tokens, guard context; few updates."""
    return Cell(
        model=ModelConfig(size=get_size("tiny"), chunk=2, reserve=8),
        data=DataConfig(DATASET),
        memory=MemoryConfig("tokens", 4),
        truncation=8,
        budget=BudgetConfig(slots=4, window=8, updates=4),
    )


@pytest.fixture(scope="session")
def cell_with(base):
    """`cell_with(**{"memory.m": 2})` → the base cell with fields changed."""
    return lambda changes=None, **kwargs: replace(base, {**(changes or {}), **kwargs})


@pytest.fixture(scope="module")
def subject_of(request, store, tmp_path_factory):
    """`subject_of(cell)` → the subject of a measurement: an untrained policy under the module's protocol `SHORT`."""

    def subject(cell: Cell, seeds: int = 4) -> Subject:
        short = request.module.SHORT
        policy = build_policy(cell, get_interface(store, get_prompts(cell), cell)).eval()
        return Subject(
            policy,
            Statistics.from_store(store),
            short,
            cell,
            tuple(range(short.seed, short.seed + seeds)),
            tmp_path_factory.mktemp("probe"),
            lambda: make_env(short.task),
            lambda: store,
        )

    return subject


@pytest.fixture(scope="session")
def trained(store, cell_with) -> Trainer:
    """A policy of a few updates: it acts, badly. For looking on: it is everybody's."""
    trainer = Trainer(cell_with({"budget.updates": 30, "model.chunk": 4}), store)
    for _ in range(30):
        trainer.step()
    return trainer


@pytest.fixture(scope="module")
def few():
    """FEW, known by its name to the command line of this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(declared_protocols(), FEW.id, FEW)
        yield FEW


@pytest.fixture(scope="module")
def study_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("study") / "study.py"
    file.write_text(STUDY.format(updates=6))
    return file


@pytest.fixture
def cells(base):
    """Four finished cells of two variants and two seeds, with made-up rows."""
    from helpers.rows import records  # imports the figures, which few tests need

    return [
        records(base, "none", no_memory(), 0, 6, 12, 2),
        records(base, "K=8", tbptt(8, 4), 0, 18, 1, 1),
        records(base, "none", no_memory(), 1, 0, 0, 20),
        records(base, "K=8", tbptt(8, 4), 1, 20, 0, 0, errors=4),
    ]


@pytest.fixture
def small_release(monkeypatch):
    """The tiny release's size, its protocol and its environment, known by name to the command line of this process."""
    monkeypatch.setitem(SIZES, "fixture", SIZE)
    monkeypatch.setitem(declared_protocols(), PROTOCOL.id, PROTOCOL)
    monkeypatch.setattr("muvla.runs.evaluate.EvaluationContext", partial(EvaluationContext, env_factory=Variant))
    monkeypatch.setattr("muvla.runs.probe.open_env", Variant)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB, full for real when it is full; needs to be root and allowed to mount."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def undrawn(monkeypatch):
    """Reports without figures, which take nearly all of the time."""
    monkeypatch.setattr(folder.ReportFolder, "pictures", lambda *_: [])


@pytest.fixture
def unrendered(monkeypatch):
    """Reports whose figures are made and not rendered."""
    monkeypatch.setattr(folder, "save", lambda figure, path, stem: (path / f"{stem}.png").touch())


@pytest.fixture(scope="session")
def slurm_cluster():
    """A real SLURM of two nodes on this machine; needs to be root. The commands of SLURM use it."""
    with running_slurm() as problem:
        if problem:
            pytest.skip(problem)
        yield
