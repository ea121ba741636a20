"""The contract of suites: every registered suite, and the suite of docs/extending/suite.md from data to rows."""

import importlib
import re
import subprocess
import sys
from dataclasses import replace as changed

import gymnasium
import numpy as np
import pytest

from helpers.paths import ROOT
from muvla.cli.main import main
from muvla.config import DataConfig, DatasetConfig, TaskConfig, train_id
from muvla.config.serialization import replace
from muvla.data.collect import collect
from muvla.data.store import open_store
from muvla.envs import registry
from muvla.envs.base import StepInfo
from muvla.envs.conformance import check_episode, check_info, check_suite
from muvla.envs.phases import Phase
from muvla.envs.registry import SUITES, find_suite, get_suite, make_env, open_env, step_limit, suites, task_info
from muvla.envs.workers import WorkerEnv
from muvla.errors import MuvlaError
from muvla.evaluation import catalog
from muvla.evaluation.catalog import declared_protocols, get_protocol, get_protocols
from muvla.evaluation.records import read_rows
from muvla.runs.run import Run
from muvla.runs.train import train_cell
from muvla.utils.registry import _entry_points
from sweeps.loader import load_study

PAGE = ROOT / "docs" / "extending" / "suite.md"
EXAMPLE, CHECK = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)[:2]
TASK, PROTOCOL = "lamps:Lamps:Lamps-v0", "lamps:Lamps:lamps-rh@1"
STUDY = f"""
from muvla.config import *
from muvla.config.sizes import get_size
from muvla.evaluation.catalog import get_protocol
from sweeps.study import Study

base = Cell(
    model=ModelConfig(size=get_size("tiny"), chunk=1, reserve=4),
    data=DataConfig(DatasetConfig(task=TaskConfig("{TASK}"), episodes=4)),
    memory=MemoryConfig("tokens", 4), truncation=4, budget=BudgetConfig(slots=2, window=4, updates=2),
)
study = Study("lamps", "a stranger's suite", base, {{"none": no_memory(), "K=4": tbptt(4, 4)}},
              ("memory.kind", "memory.m", "truncation"), (0,), (get_protocol("{PROTOCOL}"),))
"""


def forget_suites():
    for cached in (registry._load, _entry_points, catalog.declared_protocols, catalog.declared_sets):
        cached.cache_clear()
    sys.modules.pop("lamps", None)
    importlib.invalidate_caches()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the page's suite, importable in this process; forgotten afterwards."""
    (tmp_path / "lamps.py").write_text(EXAMPLE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    forget_suites()
    yield tmp_path
    forget_suites()


# --- every registered suite -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SUITES.members)
def test_a_registered_suite_keeps_the_contract(name):
    suite = get_suite(name)
    assert suite.name == name
    check_suite(suite)


def test_no_task_is_in_two_suites():
    tasks = [task for suite in suites() for task in suite.tasks()]
    assert len(tasks) == len(set(tasks))
    for suite in suites():
        assert find_suite(suite.tasks()[0]) == (suite, suite.tasks()[0])


@pytest.mark.parametrize("task", get_suite("recall").tasks())
def test_an_episode_of_the_recall_suite_keeps_the_contract(task):
    check_episode(get_suite("recall"), TaskConfig(task))
    shortest = max(2, task_info(task).cue[0])
    longer = TaskConfig(task, cue=(shortest, shortest), delay=(4, 5), blank=(0, 3))
    check_episode(get_suite("recall"), longer, seed=7)
    check_episode(get_suite("recall"), changed(longer, observable=True), seed=8)


def test_looking_a_task_up_imports_no_simulator_and_no_torch():
    code = (
        "import sys; from muvla.envs.registry import suites; from muvla.config import TaskConfig; "
        "print([(s.info(t).camera, s.step_limit(TaskConfig(t))) for s in suites() for t in s.tasks()][0]); "
        "bad = {'torch', 'mani_skill', 'sapien', 'robosuite', 'libero', 'mujoco', 'transformers'} & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stderr


def test_a_task_imports_no_suite_but_its_own():
    code = (
        "import sys; from muvla.envs.registry import task_info; task_info('RecallPosition3-v0'); "
        "sys.exit(any(name.startswith(('muvla.envs.mikasa', 'muvla.envs.libero')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_unknown_names_are_refused_with_the_nearest():
    for find, field, name, nearest in (
        (task_info, "task.name", "RecallPosition4-v0", "RecallPosition3-v0"),
        (get_suite, "suite", "mikassa", "mikasa"),
        (get_protocol, "protocol", "recall-positon3-rh@1", "recall-position3-rh@1"),
        (get_protocols, "protocol", "mikasa-23-rh@1", "mikasa23-rh@1"),
    ):
        with pytest.raises(MuvlaError) as refused:
            find(name)
        assert refused.value.field == field and nearest in refused.value.expected


# --- a stranger's suite -----------------------------------------------------------------------------------------------


def test_the_pages_checks_pass(folder):
    exec(compile(CHECK, str(PAGE), "exec"), {})


def test_a_strangers_task_is_trained_on_and_evaluated_with_its_own_protocol(folder, base, capsys):
    """The suite lies in a file: its data are collected, written, imported again, trained on and evaluated."""
    data, runs = folder / "data", folder / "runs"
    collected = collect(DatasetConfig(TaskConfig(TASK), episodes=6), data)
    assert set(collected.instructions) == {task_info(TASK).instruction}
    place = ["--data", str(data)]
    written = folder / "lerobot"
    assert main(["data", "write", collected.path.name, str(written), "--format", "lerobot", *place]) == 0
    options = ["--schema", "muvla", "--camera", "observation.images.top", "--task", TASK, "--name", "lamps"]
    assert main(["data", "import", str(written), *options, *place]) == 0
    dataset = DatasetConfig(TaskConfig(TASK), 6, source="lamps")
    store = open_store(data, dataset)
    cell = replace(base, {"data": DataConfig(dataset), "budget.updates": 2})
    run = Run(runs, data, train_id(cell, store.sha256, None))
    train_cell(run, cell, store, "cpu")
    assert main(["evaluate", run.train, "--protocol", PROTOCOL, *place, "--runs", str(runs)]) == 0
    rows = [row for path in run.rows.glob("*.jsonl") for row in read_rows(path)]
    assert len(rows) == 20 and {(row.task, row.group, row.error) for row in rows} == {(TASK, "lamps", None)}
    assert {row.target for row in rows} == {0, 1} and {row.protocol for row in rows} == {"lamps-rh@1"}


def test_a_strangers_study_finds_the_suite_beside_it(folder, monkeypatch, tmp_path_factory):
    (folder / "study.py").write_text(STUDY, encoding="utf-8")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    study = load_study(folder)
    study.check()
    assert [protocol.task.name for protocol in study.protocols] == [TASK]


def test_a_suite_is_found_in_the_working_directory(folder, monkeypatch):
    """The program `muvla` does not have the directory on its path."""
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(folder))])
    monkeypatch.chdir(folder)
    assert task_info(TASK).suite == "lamps"


def test_a_worker_process_finds_the_suite(folder, monkeypatch):
    suite, _ = find_suite(TASK)
    monkeypatch.setattr(type(suite), "info", lambda self, task: changed(LAMPS, own_process=True))
    env = open_env(TaskConfig(TASK))
    try:
        assert isinstance(env, WorkerEnv) and env.reset(seed=0)[1]["phase"] is Phase.CUE
    finally:
        env.close()


LAMPS = None  # set below: the facts that the page declares


@pytest.fixture(autouse=True)
def _facts(request):
    global LAMPS
    if "folder" in request.fixturenames:
        request.getfixturevalue("folder")
        LAMPS = task_info(TASK)


def test_an_installed_suite_has_plain_names(folder):
    install(folder, "lamps = lamps:Lamps")
    assert task_info("Lamps-v0").suite == "lamps" and get_suite("lamps").name == "lamps"
    assert get_protocol("lamps-rh@1").task == TaskConfig("Lamps-v0") and "lamps-rh@1" in declared_protocols()
    assert step_limit(TaskConfig("Lamps-v0")) == 9
    assert isinstance(make_env(TaskConfig("Lamps-v0")), gymnasium.Env)


@pytest.mark.parametrize("value", ["nowhere:Lamps", "lamps:Nothing", "lamps:LampsEnv"])
def test_an_installed_suite_that_cannot_be_loaded_stops_no_other(folder, value):
    install(folder, f"broken = {value}", "lamps = lamps:Lamps")
    with pytest.warns(UserWarning, match="entry point broken"):
        assert task_info("Lamps-v0").suite == "lamps"
    assert task_info("libero_goal-0").suite == "libero"


def install(folder, *entries):
    """The files that an installer writes for a package with these entry points."""
    record = folder / "lamps-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: lamps\nVersion: 1.0\n")
    (record / "entry_points.txt").write_text("[muvla.suites]\n" + "\n".join(entries) + "\n")
    forget_suites()


@pytest.mark.parametrize(
    "task", ["nowhere:Lamps:Lamps-v0", "lamps:Nothing:Lamps-v0", "lamps:LampsEnv:x", "lamps:Lamps"]
)
def test_an_import_path_that_leads_nowhere_is_refused(folder, task):
    with pytest.raises(MuvlaError) as refused:
        task_info(task)
    assert refused.value.field == "suite" and "muvla" not in refused.value.got


def test_a_task_that_the_suite_lacks_is_refused_with_the_nearest(folder):
    with pytest.raises(MuvlaError) as refused:
        task_info("lamps:Lamps:Lamps-v1")
    assert refused.value.field == "task.name" and TASK in refused.value.remedy


def test_fields_that_a_task_cannot_change_are_refused(folder):
    for name, value in {"cue": (1, 1), "delay": (1, 1), "palette": ("red",), "shift": "light", "step_limit": 5}.items():
        with pytest.raises(MuvlaError) as refused:
            make_env(TaskConfig(TASK, **{name: value}))
        assert refused.value.field == f"task.{name}"


# --- what the checks find ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"suite": "recall"}, "suite"),
        ({"instruction": " ", "instructions": (" ",)}, "instruction"),
        ({"instructions": ("Another.",)}, "instructions"),
        ({"chance": 1.5}, "chance"),
        ({"settable": ("speed",)}, "settable"),
        ({"colours": ("red",)}, "colours"),
        ({"cue": (2, 20)}, "step_limit"),
        ({"settable": ("delay",)}, "step_limit with a longer delay"),
    ],
)
def test_facts_that_break_the_contract_are_found(folder, monkeypatch, changes, field):
    suite = get_suite("lamps:Lamps")
    monkeypatch.setattr(type(suite), "info", lambda self, task: changed(LAMPS, **changes))
    with pytest.raises(MuvlaError) as found:
        check_suite(suite)
    assert found.value.field == f"suite lamps: Lamps-v0: {field}"


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("instruction", ""),
        ("phase", 1),
        ("phase", Phase.UNKNOWN),
        ("target", -1),
        ("choice", None),
        ("success", None),
        ("cue_length", None),
        ("executed_action", np.zeros(3, np.float32)),
        ("executed_action", np.zeros(2)),
        ("executed_action", np.array([np.nan, 0], np.float32)),
        ("expert_action", None),
    ],
    ids=str,
)
def test_an_info_that_breaks_the_contract_is_found(folder, entry, value):
    _, info = make_env(TaskConfig(TASK)).reset(seed=0)
    check_info(info, 2, expert=True)
    with pytest.raises(MuvlaError) as found:
        check_info(info | {entry: value}, 2, expert=True)
    assert found.value.field == f"info.{entry}"


@pytest.mark.parametrize("entry", sorted(StepInfo.__required_keys__))
def test_an_info_that_lacks_an_entry_is_found(folder, entry):
    _, info = make_env(TaskConfig(TASK)).reset(seed=0)
    with pytest.raises(MuvlaError) as found:
        check_info({name: value for name, value in info.items() if name != entry}, 2)
    assert found.value.field == f"info.{entry}"


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        ('numpy_rng(seed, "lamps")', "np.random.default_rng()", "reset"),
        ("self.hand.copy()", "self.hand.astype(float)", "proprio"),
        ("or SIZE", "or 16", "images"),
        ("self.t >= self.step_limit", "False", "step_limit"),
        ('"instruction": TEXT', '"instruction": "Go."', "instruction"),
    ],
)
def test_an_episode_that_breaks_the_contract_is_found(folder, before, after, what):
    assert EXAMPLE.count(before) == 1
    source = EXAMPLE.replace(before, after)
    if what == "step_limit":  # the expert would end the episode
        source = source.replace("abs(self.hand[0]) > 0.9", "False").replace("expert=True,", "")
    (folder / "lamps.py").write_text(source, encoding="utf-8")
    forget_suites()
    suite = get_suite("lamps:Lamps")
    with pytest.raises(MuvlaError) as found:
        for seed in range(5):  # two lamps: a draw may be the same by chance
            check_episode(suite, TaskConfig("Lamps-v0"), seed)
    assert found.value.field == f"suite lamps: Lamps-v0: {what}"


def test_an_expert_that_fails_is_found(folder):
    (folder / "lamps.py").write_text(EXAMPLE.replace("[1 if self.target else -1, 0]", "[0, 0]"), encoding="utf-8")
    forget_suites()
    with pytest.raises(MuvlaError) as found:
        check_episode(get_suite("lamps:Lamps"), TaskConfig("Lamps-v0"))
    assert found.value.field == "suite lamps: expert of Lamps-v0"
