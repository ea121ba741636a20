"""A study file and its neighbours: what may be imported, from anywhere and in worker processes."""

import sys
from pathlib import Path

import pytest

from muvla.cli.main import main
from muvla.errors import MuvlaError
from sweeps.loader import load_study, project_root
from sweeps.study import Study

ROOT = Path(__file__).parents[1]
STUDY = """
from {module} import M, PROTOCOL
from muvla.config import *
from muvla.config.sizes import get_size
from sweeps.study import Study

base = Cell(
    model=ModelConfig(size=get_size("tiny"), chunk=1, reserve=M),
    data=DataConfig(DatasetConfig(task=TaskConfig("RecallPosition3-v0"), episodes=4)),
    memory=MemoryConfig("tokens", M), truncation=4, budget=BudgetConfig(slots=2, window=4, updates=1),
)
study = Study("neighbours", "imports a neighbour", base, {{"none": no_memory(), "K=4": tbptt(4, M)}},
              ("memory.kind", "memory.m", "truncation"), (0,), (PROTOCOL,))
"""
NEIGHBOUR = """
from dataclasses import dataclass, replace
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.protocol import Protocol

M = {m}

@dataclass(frozen=True)
class OwnProtocol(Protocol):
    '''A class of the project: a worker process must import this module to read a job.'''

few = replace(get_protocol("recall-position3-rh@1"), name="few", episodes=2, slots=2)
PROTOCOL = OwnProtocol(**{{name: getattr(few, name) for name in few.__dataclass_fields__}})
"""


def write_project(root: Path, m: int = 4) -> Path:
    """A project with a study in a folder, whose neighbour is imported by its place in the project."""
    folder = root / "studies" / "first"
    folder.mkdir(parents=True)
    (root / "pyproject.toml").write_text("")
    (folder / "shared.py").write_text(NEIGHBOUR.format(m=m))
    (folder / "study.py").write_text(STUDY.format(module="studies.first.shared"))
    return folder


def test_a_study_imports_its_neighbours_from_the_root_of_its_project(tmp_path, monkeypatch):
    folder = write_project(tmp_path / "project")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert load_study(Path("../project/studies/first")).base.memory.m == 4
    assert project_root(folder / "study.py") == tmp_path / "project"


def test_without_a_project_the_root_is_the_folder_of_the_file(tmp_path):
    (tmp_path / "shared.py").write_text(NEIGHBOUR.format(m=2))
    (tmp_path / "study.py").write_text(STUDY.format(module="shared"))
    assert load_study(tmp_path / "study.py").base.memory.m == 2


def test_modules_of_two_projects_are_not_confused(tmp_path):
    """Both have a module of the same name, and each study gets the module of its project."""
    first, second = (write_project(tmp_path / name, m) for name, m in (("a", 1), ("b", 2)))
    assert [load_study(folder).base.memory.m for folder in (first, second, first)] == [1, 2, 1]


@pytest.mark.slow
def test_worker_processes_import_the_neighbours_too(tmp_path, monkeypatch):
    """A sweep of two processes, started in another folder."""
    folder = write_project(tmp_path / "project")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main(["sweep", str(folder), "--processes", "2", "--no-tracking"]) == 0
    assert len(list(elsewhere.glob("runs/*/rows/*.jsonl"))) >= 2


@pytest.mark.parametrize("line", ["{}['x']", "open('/nowhere/at/all')", "().x", "1 / 0", "x ="])
def test_a_study_file_that_breaks_in_any_way_is_one_error_that_names_the_line(tmp_path, line):
    (tmp_path / "study.py").write_text(f"\n\n{line}\n")
    with pytest.raises(MuvlaError) as info:
        load_study(tmp_path)
    assert info.value.field == str(tmp_path / "study.py") and "line 3" in info.value.remedy


def test_loading_what_is_no_study(tmp_path):
    with pytest.raises(MuvlaError) as info:
        load_study(tmp_path / "nothing")
    assert info.value.field == "study"
    for text, got in (
        ("from muvla.config import ModelConfig\nModelConfig(gaurd='full')\n", "gaurd"),
        ("study = 3\n", "int"),
        ("from sweeps.study import Study\nstudy = Study(arms={})\n", "arms"),
    ):
        (tmp_path / "study.py").write_text(text)
        with pytest.raises(MuvlaError) as info:
            load_study(tmp_path)
        assert got in str(info.value.got)


def test_a_project_cannot_replace_the_library(tmp_path):
    """Loading a study forgets modules of other projects, never those of muvla, wherever it is installed."""
    load_study(ROOT / "experiments" / "recall_quick")
    load_study(write_project(tmp_path / "project"))
    assert sys.modules["sweeps.study"].Study is Study
