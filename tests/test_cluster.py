"""Real schedulers: Ray with a killed worker; SLURM with cancelled, requeued and killed jobs, and a logout."""

import contextlib
import dataclasses
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from helpers.paths import ROOT
from helpers.processes import running_below, wait_until
from helpers.slurm import squeue
from helpers.studies import STUDY
from muvla.errors import MuvlaError
from muvla.utils.io import read_json, read_lines
from sweeps.launchers.base import Job, Status
from sweeps.launchers.registry import make_launcher
from sweeps.launchers.slurm import Submitted
from sweeps.ledger import Ledger
from sweeps.loader import load_study
from sweeps.sweep import SweepOptions, run_study

pytestmark = pytest.mark.cluster
TIMED = {"seconds": 0, "environment_seconds": 0, "provenance": ""}
LONG = 400  # updates of a training that is disturbed; some 10 s


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def study(tmp_path):
    """`study(updates)` → the small study of two variants, in a file of its own."""

    def build(updates):
        (tmp_path / "study.py").write_text(STUDY.format(updates=updates))
        return load_study(tmp_path / "study.py")

    return build


@pytest.fixture
def cells(study, tmp_path, data):
    """`cells(updates)` → the entries of the small study, and their jobs."""

    def build(updates=LONG):
        chosen = study(updates)
        ledger = Ledger(tmp_path / "runs", data)
        entries = ledger.entries(chosen, ledger.stores(chosen))
        return entries, [Job(e.item.label, e.run, e.item.cell, tuple(e.missing()), "cpu", 1) for e in entries]

    return build


def rows_of(entries):
    """Rows by cell and condition, without times."""
    return [
        {
            condition: [dataclasses.replace(row, **TIMED) for row in rows]
            for condition, rows in e.complete_rows().items()
        }
        for e in entries
    ]


def require_whole_logs(entries):
    """No update is in a log twice, and none is missing."""
    for entry in entries:
        updates = [row["update"] for row in read_lines(entry.run.folder / "train.jsonl")]
        assert updates == sorted(set(updates)) and updates[-1] == entry.item.cell.budget.updates


class Disturbance:
    """Runs `action(entry)` once, as soon as a cell trains and has a checkpoint."""

    def __init__(self, entries, action):
        self.entries, self.action, self.done = entries, action, False

    def __call__(self, running):
        if self.done:
            return
        for entry in self.entries:
            owner = entry.run.owner
            if owner and (entry.run.folder / "train.jsonl").exists():
                self.done = True
                self.action(entry, owner)
                return


def test_a_cell_whose_ray_worker_is_killed_continues_on_another(cells):
    entries, jobs = cells()
    ended, messages = [], set()
    kill = Disturbance(entries, lambda entry, owner: os.kill(owner.pid, signal.SIGKILL))

    def tick(running):
        messages.update(progress.message for progress in running)
        kill(running)

    make_launcher("ray", 2, {}).run(jobs, tick, ended.append)
    assert kill.done and [end.status for end in ended] == [Status.DONE] * 2
    assert any(message.startswith("starts again") for message in messages)
    require_whole_logs(entries)


def test_a_cell_that_loses_every_worker_is_marked_once(cells, tmp_path, data):
    """The sweep marks the cell, so that no later sweep tries for ever."""
    (entry, _), (job, _) = cells()
    ended = []

    def kill(running):
        owner = entry.run.owner
        if owner and owner.is_here:
            with contextlib.suppress(ProcessLookupError):
                os.kill(owner.pid, signal.SIGKILL)

    make_launcher("ray", 1, {}).run([job], kill, ended.append)
    (end,) = ended
    assert end.status == Status.LOST and not end.by_signal and "3 times" in end.message


@pytest.mark.parametrize(
    ("options", "field"),
    [({"address": "127.0.0.1:1"}, "--address"), ({"gpus_per_cell": 99}, "--gpus-per-cell")],
)
def test_an_unreachable_cluster_and_missing_gpus_are_one_clear_error(options, field):
    with pytest.raises(MuvlaError) as info:
        make_launcher("ray", 1, options).check("cpu")
    assert info.value.field == field


def test_resources_that_no_ray_node_has_are_refused(cells):
    _, jobs = cells()
    with pytest.raises(MuvlaError) as info:
        make_launcher("ray", 1, {"resources": "a100=1"}).run(jobs, lambda _: None, lambda _: None)
    assert info.value.field == "--option"


def test_a_requeued_slurm_job_continues_from_its_checkpoint(slurm_cluster, cells):
    """SIGUSR1 is what SLURM sends before the time limit."""
    entries, jobs = cells()
    ended, seen = [], []

    def requeue(entry, owner):
        subprocess.run(["scancel", "--signal=USR1", _job_of(entry)], check=True)
        seen.append(entry)

    disturb = Disturbance(entries, requeue)
    make_launcher("slurm", 2, {"time": 30}).run(jobs, disturb, ended.append)
    assert seen and {end.status for end in ended} == {Status.DONE}
    require_whole_logs(entries)
    timings = [line for line in read_lines(seen[0].run.folder / "timings.jsonl") if line["what"] == "training"]
    assert sum(line["seconds"] > 0 for line in timings) == 2, "trained in two parts"


def _job_of(entry) -> str:
    """The job of SLURM that works on a cell."""
    jobs = {}
    for file in (entry.run.root / ".slurm").glob("*.json"):
        jobs |= read_json(file)
    return jobs[entry.run.train]


def test_a_cancelled_slurm_job_is_named_and_not_marked_and_the_same_command_continues(
    slurm_cluster, study, tmp_path, data
):
    ledger, said, chosen = Ledger(tmp_path / "runs", data), [], study(LONG)
    entries = ledger.entries(chosen, ledger.stores(chosen))
    options = SweepOptions(processes=2, track=False, launcher="slurm", launch={"time": 30})
    cancel = Disturbance(entries, lambda entry, owner: subprocess.run(["scancel", _job_of(entry)], check=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sweeps.launchers.slurm.Submitted.poll", _before(cancel))
        result = run_study(chosen, ledger, options, said.append)
    assert cancel.done and len(result.failed) == 1 and result.failed[0].run.failure is None
    assert "CANCELLED" in "\n".join(said)
    result = run_study(chosen, ledger, options, said.append)
    assert not result.failed and not result.not_run
    require_whole_logs(entries)


def _before(action):
    poll = Submitted.poll

    def disturbed(self, states):
        action([])
        return poll(self, states)

    return disturbed


def sweep(folder, runs, data, *options) -> subprocess.Popen:
    command = [sys.executable, "-m", "muvla.cli", "sweep", folder, "--no-tracking", "--runs", runs, "--data", data]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*command, *options], env=environment, stdout=pipe, stderr=pipe, text=True, preexec_fn=_heed_logout
    )


def _heed_logout() -> None:
    """Below nohup a process ignores SIGHUP, and so do its children."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_slurm_jobs_survive_a_logout_and_the_same_command_takes_them_up(slurm_cluster, cells, study, tmp_path, data):
    entries, _ = cells()
    slurm = ("--launcher", "slurm", "--option", "time=30", "--processes", "1")  # the second job waits in the queue
    process = sweep(tmp_path, tmp_path / "runs", data, *slurm)
    assert wait_until(lambda: any(e.run.owner for e in entries), 180), process.communicate()
    process.send_signal(signal.SIGHUP)
    process.wait(60)
    waiting = squeue()  # read first: a job may end in between
    done = sum(entry.state == "done" for entry in entries)
    assert len(waiting) + done >= 2, "the jobs belong to the scheduler"
    again = sweep(tmp_path, tmp_path / "runs", data, *slurm)
    out, errors = again.communicate(timeout=400)
    assert again.returncode == 0 or "works on it" in out, errors
    assert wait_until(lambda: all(e.state == "done" for e in entries), 200)
    assert len(list((tmp_path / "runs" / ".slurm").glob("*.json"))) == 1, "nothing was submitted twice"
    require_whole_logs(entries)


def test_a_refused_submission_is_one_clear_error_and_a_script_is_printed(slurm_cluster, cells, monkeypatch):
    _, jobs = cells()
    launcher = make_launcher("slurm", 2, {"partition": "nowhere", "flags": "--qos=high --exclusive", "memory": 2})
    script = launcher.preview(3, "cuda", 1)
    for line in (
        "--partition=nowhere",
        "--qos=high",
        "--exclusive",
        "--array=0-2%2",
        "--mem=2048MB",
        "--signal=USR1@120",
    ):
        assert f"#SBATCH {line}\n" in script
    assert "--gpus-per-node=1" in script and "--requeue" in script
    with pytest.raises(MuvlaError) as info:
        launcher.run(jobs, lambda _: None, lambda _: None)
    assert info.value.field == "--launcher slurm" and "partition" in info.value.got
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MuvlaError) as info:
        launcher.check("cpu")
    assert info.value.field == "--launcher slurm"


def test_rows_of_all_launchers_are_equal_on_three_variants(slurm_cluster, tmp_path, data):
    """The study recall_quick, with few updates and episodes."""
    study = load_study(ROOT / "experiments" / "recall_quick").with_base(
        {"budget.updates": 8, "data.dataset.episodes": 24}
    )
    study = study.narrowed((0,), tuple(study.variants)[:3])
    few = tuple(dataclasses.replace(protocol, name="few", episodes=16, slots=8) for protocol in study.protocols[:1])
    study = dataclasses.replace(study, protocols=few, probes=())
    results = []
    for name in ("local", "ray", "slurm"):
        options = SweepOptions(processes=2, track=False, launcher=name)
        result = run_study(study, Ledger(tmp_path / name, data), options, lambda _: None)
        assert not result.failed and not result.not_run
        results.append(rows_of(result.entries))
    assert len(results[0]) == 3 and all(cell for cell in results[0])
    assert results[1] == results[0] and results[2] == results[0]


def test_ten_kills_at_random_moments_change_no_row(study, tmp_path, data):
    """Workers of two sweeps of one folder are killed; the same command brings the cells to their ends."""
    chosen = study(LONG)
    whole = run_study(chosen, Ledger(tmp_path / "whole", data), SweepOptions(2, track=False), lambda _: None)
    draw, kills = random.Random(0), 0
    entries = Ledger(tmp_path / "runs", data).entries(chosen, Ledger(tmp_path / "runs", data).stores(chosen))
    for _ in range(60):
        process = sweep(tmp_path, tmp_path / "runs", data, "--processes", "2")
        wait_until(lambda p=process: p.poll() is not None or any(e.run.owner for e in entries), 120)
        while process.poll() is None and kills < 10:
            time.sleep(draw.uniform(0, 4))
            owners = {owner.pid for entry in entries if (owner := entry.run.owner)} & set(running_below(process.pid))
            if owners:
                os.kill(draw.choice(sorted(owners)), signal.SIGKILL)
                kills += 1
        process.communicate(timeout=300)
        if kills >= 10 and all(entry.state == "done" for entry in entries):
            break
    assert kills == 10 and rows_of(entries) == rows_of(whole.entries)
    require_whole_logs(entries)
