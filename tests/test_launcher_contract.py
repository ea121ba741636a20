"""The contract of `sweeps.launchers.base.Launcher`, for every registered launcher and for a package's launcher."""

import dataclasses
import pickle
import re
import sys
import time

import pytest

from helpers.packages import write_package
from helpers.paths import ROOT
from helpers.studies import STUDY
from muvla.config import no_memory, tbptt
from muvla.config.serialization import replace
from muvla.errors import MuvlaError
from sweeps.launchers.base import Job, Launcher, Status
from sweeps.launchers.registry import LAUNCHERS, get_launcher
from sweeps.ledger import Ledger
from sweeps.loader import load_study
from sweeps.sweep import SweepOptions, run_study

HERE, SCHEDULERS = "local", ("slurm", "ray")
OUTSIDE = "serial"  # the launcher of docs/extending/launcher.md
PAGE = (ROOT / "docs" / "extending" / "launcher.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module", autouse=True)
def package(tmp_path_factory):
    """The worked example of the documentation, installed as a package outside the repository."""
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    group, name, place = re.search(r'entry-points\."(.+?)"\]\n(\w+) = "(.+?)"', PAGE).groups()
    root = tmp_path_factory.mktemp("site")
    write_package(root, "muvla-serial", {"muvla_serial.py": code}, {group: {name: place}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(root), *sys.path])
        yield root


@pytest.fixture(params=[HERE, OUTSIDE, *(pytest.param(name, marks=pytest.mark.cluster) for name in SCHEDULERS)])
def launcher(request) -> type[Launcher]:
    if request.param == "slurm":
        request.getfixturevalue("slurm_cluster")
    return get_launcher(request.param)


@pytest.fixture
def patience(launcher) -> float:
    """Seconds after which a job of the launcher certainly trains."""
    return 25.0 if launcher.runs_elsewhere else 6.0


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    """Data that the tests share; each test has run folders of its own."""
    return Ledger(tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("data"))


@pytest.fixture
def entries(ledger, tmp_path):
    """`entries(updates, **overrides)` → the cells of the small study, nothing of them done."""
    (tmp_path / "study.py").write_text(STUDY.format(updates=4))

    def build(updates=4, **changes):
        study = load_study(tmp_path / "study.py").with_base({"budget.updates": updates})
        study = dataclasses.replace(study, **changes)
        return Ledger(tmp_path / "runs", ledger.data).entries(study, ledger.stores(study))

    return build


class Log:
    """Keeps what a launcher calls."""

    def __init__(self):
        self.ends, self.ticks = [], []

    def on_tick(self, running):
        self.ticks += [(progress.job, progress.fraction) for progress in running]

    def on_end(self, end):
        self.ends.append(end)

    @property
    def statuses(self):
        return {end.job.label: end.status for end in self.ends}


def jobs_of(entries):
    return [Job(e.item.label, e.run, e.item.cell, tuple(e.missing()), "cpu", 1) for e in entries]


def plain(entry):
    drop = {"seconds": 0, "environment_seconds": 0, "provenance": ""}
    rows = entry.complete_rows()
    return {condition: [dataclasses.replace(row, **drop) for row in rows[condition]] for condition in rows}


@pytest.mark.slow
def test_every_job_is_done_once_and_reported_once(launcher, entries):
    cells, log = entries(), Log()
    jobs = jobs_of(cells)
    launcher(2).run(jobs, log.on_tick, log.on_end)
    assert len(log.ends) == len(jobs) and set(log.statuses.values()) == {Status.DONE}
    assert [entry.state for entry in cells] == ["done"] * len(cells)
    assert all(entry.run.owner is None for entry in cells), "no job still works in its folder"
    assert log.ticks and all(job in jobs and 0 <= fraction <= 1 for job, fraction in log.ticks)


def test_every_launcher_of_this_project_is_checked():
    assert LAUNCHERS.members.keys() == {HERE, *SCHEDULERS}


@pytest.mark.slow
@pytest.mark.parametrize("others", [(OUTSIDE,), pytest.param(SCHEDULERS, marks=pytest.mark.cluster)])
def test_results_do_not_depend_on_the_launcher(tmp_path, ledger, request, others):
    if "slurm" in others:
        request.getfixturevalue("slurm_cluster")
    (tmp_path / "study.py").write_text(STUDY.format(updates=4))
    study, results = load_study(tmp_path / "study.py"), []
    for name in (HERE, *others):
        options = SweepOptions(processes=2, track=False, launcher=name)
        result = run_study(study, Ledger(tmp_path / name, ledger.data), options, lambda _: None)
        assert not result.failed and not result.not_run
        results.append([plain(entry) for entry in result.entries])
    assert all(result == results[0] for result in results)


@pytest.mark.slow
def test_a_failing_job_costs_no_other(launcher, entries):
    """Its cell is marked by the job itself."""
    cells = entries()
    broken = replace(cells[0].item.cell, {"optimizer.lr": 1e30, "optimizer.clip": None})
    jobs, log = jobs_of(cells), Log()
    jobs[0] = dataclasses.replace(jobs[0], cell=broken)
    launcher(1).run(jobs, log.on_tick, log.on_end)
    assert [end.status for end in log.ends] == [Status.MARKED, Status.DONE]
    assert cells[0].run.failure is not None and cells[1].state == "done"


@pytest.mark.slow
def test_a_job_that_dies_before_it_can_mark_its_cell_is_lost(launcher, entries):
    cells, log = entries(), Log()
    (cells[0].run.folder / "log.txt").mkdir(parents=True)  # the log cannot be opened
    launcher(1).run(jobs_of(cells), log.on_tick, log.on_end)
    assert [end.status for end in log.ends] == [Status.LOST, Status.DONE] and log.ends[0].message


@pytest.mark.slow
def test_after_the_deadline_nothing_starts(launcher, entries):
    cells, log = entries(), Log()
    launcher(1).run(jobs_of(cells), log.on_tick, log.on_end, deadline=time.monotonic() - 1)
    assert not log.ends and not any(entry.run.folder.exists() for entry in cells)


@pytest.mark.slow
def test_at_the_deadline_a_job_stops_with_a_checkpoint_and_is_not_reported(launcher, entries, patience):
    cells, log = entries(1_000_000, variants={"K=8": tbptt(8, 4)}), Log()
    launcher(1).run(jobs_of(cells), log.on_tick, log.on_end, deadline=time.monotonic() + patience)
    assert not log.ends and cells[0].state == "partial" and cells[0].run.failure is None
    assert any((cells[0].run.folder / "checkpoints").iterdir())


@pytest.mark.slow
def test_an_interrupt_stops_the_jobs_and_comes_out(launcher, entries):
    cells, log = entries(1_000_000, variants={"K=8": tbptt(8, 4), "none": no_memory()}), Log()

    def interrupt(running):
        if any(progress.fraction > 0 for progress in running):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launcher(1).run(jobs_of(cells), interrupt, log.on_end)
    assert not log.ends and all(entry.run.failure is None and entry.run.owner is None for entry in cells)


def test_a_launcher_without_processes_is_refused(launcher):
    with pytest.raises(MuvlaError) as info:
        launcher(0)
    assert info.value.field == "--processes"


@pytest.mark.slow
def test_a_job_can_be_pickled(entries):
    (job, *_) = jobs_of(entries())
    assert pickle.loads(pickle.dumps(job)) == job


def test_an_unknown_launcher_and_a_member_that_is_none_are_refused(package, tmp_path, monkeypatch):
    with pytest.raises(MuvlaError) as info:
        get_launcher("lokal")
    assert info.value.field == "--launcher" and "'local'" in info.value.remedy
    write_package(tmp_path, "muvla-bad", {}, {"muvla.launchers": {"bad": "muvla_serial:_reporter"}})
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(MuvlaError) as info:
        get_launcher("bad")
    assert info.value.field == "--launcher bad"


def test_the_base_class_cannot_run():
    with pytest.raises(TypeError):
        Launcher(1)
