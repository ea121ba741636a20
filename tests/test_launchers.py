"""Parts that launchers share: options, devices, missing packages, several ranks per cell, cells of other sweeps."""

import dataclasses
import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver
from types import SimpleNamespace

import msgspec
import pytest

from helpers.shared_folder import pretend
from helpers.studies import one_cell
from muvla.cli.main import main
from muvla.config.serialization import replace
from muvla.errors import MuvlaError
from muvla.utils import leases
from muvla.utils.io import read_lines
from muvla.utils.locks import locked
from muvla.utils.owner import start_of, this_process
from sweeps.launchers import devices
from sweeps.launchers import ray as ray_launcher
from sweeps.launchers.base import End, Launcher, Progress, Status
from sweeps.launchers.devices import Places
from sweeps.launchers.local import LocalLauncher, LocalOptions, Running
from sweeps.launchers.options import parse_options, read_texts
from sweeps.launchers.parcel import pack, unpack
from sweeps.launchers.ray import RayLauncher, RayOptions
from sweeps.launchers.registry import make_launcher
from sweeps.launchers.slurm import SlurmOptions
from sweeps.ledger import Ledger
from sweeps.sweep import SweepOptions, run_study
from sweeps.turns import in_turn, sweep_number
from sweeps.work import bring_to_end


@pytest.fixture
def gpus(monkeypatch):
    """`gpus(8)` → this machine has eight GPUs, as far as launchers ask."""
    return lambda count: monkeypatch.setattr(devices, "count_gpus", lambda: count)


def test_options_come_from_texts_and_a_file_and_the_text_counts_more(tmp_path):
    file = tmp_path / "cluster.toml"
    file.write_text("partition = 'cpu'\nmemory = 16\nflags = ['--qos=high']\n")
    texts = read_texts(["partition=gpu", "setup='module load cuda'"], file, gpus_per_cell=2, address=None)
    assert parse_options(SlurmOptions, texts, "slurm") == SlurmOptions(
        partition="gpu", memory=16.0, flags=("--qos=high",), setup=("module load cuda",), gpus_per_cell=2
    )


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda tmp: read_texts(["partition"]), "--option"),
        (lambda tmp: read_texts(["a=1", "a=2"]), "--option"),
        (lambda tmp: read_texts(["gpus_per_cell=1"], gpus_per_cell=2), "--option"),
        (lambda tmp: read_texts([], tmp / "none.toml"), "none.toml"),
        (lambda tmp: read_texts([], tmp / "bad.toml"), "bad.toml"),
        (lambda tmp: parse_options(SlurmOptions, {"partion": "gpu"}, "slurm"), "--option of the launcher slurm"),
        (lambda tmp: parse_options(LocalOptions, {"address": "a:1"}, "local"), "--option of the launcher local"),
        (lambda tmp: parse_options(SlurmOptions, {"time": "a day"}, "slurm"), "--option time"),
        (lambda tmp: parse_options(RayOptions, {"cpus": "1.5"}, "ray"), "--option cpus"),
        (lambda tmp: parse_options(Launcher.Options, {"x": "1"}, "serial"), "--option x"),
        (lambda tmp: make_launcher("slrum", 1, {}), "--launcher"),
        (lambda tmp: make_launcher("local", 1, {}).preview(1, "cpu", 1), "--dry-run"),
        (lambda tmp: LocalLauncher(1, LocalOptions(0)).check("cpu"), "--gpus-per-cell"),
    ],
)
def test_a_bad_option_is_one_clear_error(tmp_path, build, field):
    (tmp_path / "bad.toml").write_text("partition = gpu")
    with pytest.raises(MuvlaError) as info:
        build(tmp_path)
    assert info.value.field.endswith(field)


@pytest.mark.parametrize(("name", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_launcher_without_its_package_names_the_command_that_installs_it(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MuvlaError) as info:
        make_launcher(name, 1, {})
    assert info.value.field == package and f"pip install -e '.[{name}]'" in info.value.remedy


def test_cells_go_round_robin_over_all_gpus_and_the_least_busy_first(gpus):
    gpus(8)
    places = Places("cuda")
    taken = [places.take() for _ in range(10)]
    assert [places.device_at(place) for place in taken] == [f"cuda:{i % 8}" for i in range(10)]
    places.give_back(taken[5])
    assert places.take() == (5,), "the place that is free"
    assert LocalLauncher.default_processes("cuda", LocalOptions()) == 8


def test_a_cell_of_several_gpus_sees_its_gpus_alone(gpus, monkeypatch):
    gpus(8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    places = Places("cuda", 3)
    assert places.count == 2 and [places.visible_at(places.take()) for _ in range(3)] == ["0,1,2", "3,4,5", "0,1,2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b,GPU-c")
    gpus(3)
    assert places.visible_at(Places("cuda", 3).take()) == "GPU-a,GPU-b,GPU-c"
    assert places.device_at((0, 1, 2)) == "cuda"


@pytest.mark.parametrize(("device", "count", "wanted"), [("cuda", 2, 3), ("cuda", 0, 1), ("cuda:1", 4, 2)])
def test_fewer_gpus_than_asked_for_are_refused(gpus, device, count, wanted):
    gpus(count)
    with pytest.raises(MuvlaError) as info:
        LocalLauncher(1, LocalOptions(wanted)).check(device)
    assert info.value.field == "--gpus-per-cell" and info.value.got == wanted


def test_the_command_line_does_not_turn_gpus_into_a_cpu(gpus, monkeypatch, study_file, capsys):
    gpus(0)
    monkeypatch.setattr("muvla.utils.devices.choose_device", lambda name: "cpu")
    assert main(["sweep", str(study_file), "--gpus-per-cell", "2", "--plan"]) == 2
    assert "--gpus-per-cell" in capsys.readouterr().err


@pytest.mark.slow
def test_two_ranks_train_one_cell_and_one_process_evaluates_it(study_file, tmp_path):
    """gloo on the CPU stands for two GPUs."""
    entry, job = one_cell(study_file, tmp_path)
    ended = []
    LocalLauncher(1, LocalOptions(2)).run([job], lambda _: None, ended.append)
    assert [end.status for end in ended] == [Status.DONE], (entry.run.folder / "log.txt").read_text()
    (record,) = {r["ranks"] for r in entry.run.provenance([]).values()}
    assert record and "2" in record
    assert [row["update"] for row in read_lines(entry.run.folder / "train.jsonl")][-1] == 6


@pytest.mark.cluster
def test_ranks_stop_when_they_are_asked_and_end_with_the_cells_process(study_file, tmp_path):
    entry, job = one_cell(study_file, tmp_path, 1_000_000)
    job, seen = dataclasses.replace(job, ranks=2), []
    status = bring_to_end(job, lambda *report: seen.append(report), lambda: len(seen) > 2)
    assert status == Status.STOPPED and entry.state == "partial" and entry.run.failure is None


def test_a_rank_ends_with_the_process_that_it_works_for():
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    code = (
        f"from sweeps.ranks import _end_with; print('works', flush=True); _end_with({other.pid}, {start_of(other.pid)})"
    )
    rank = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert rank.stdout.readline().strip() == "works" and rank.poll() is None
    other.kill()
    other.wait()
    assert rank.wait(60) == 1


@pytest.mark.cluster
def test_the_error_of_a_rank_is_the_cells(study_file, tmp_path):
    entry, job = one_cell(study_file, tmp_path)
    broken = dataclasses.replace(job, ranks=2, cell=replace(job.cell, {"optimizer.lr": 1e30, "optimizer.clip": None}))
    assert bring_to_end(broken, lambda *_: None, lambda: False) == Status.MARKED
    assert entry.run.failure is not None


def test_a_parcel_brings_the_import_path_and_the_folder(study_file, tmp_path, monkeypatch):
    _, job = one_cell(study_file, tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "project")])
    monkeypatch.chdir(tmp_path)
    parcel = pack(job)
    monkeypatch.setattr(sys, "path", sys.path[:-1])
    monkeypatch.chdir("/")
    assert unpack(parcel) == job and sys.path[-1] == str(tmp_path / "project")
    assert str(tmp_path) == parcel.folder


def test_sweeps_begin_at_different_cells_and_keep_seeds_whole(tmp_path):
    cells = [SimpleNamespace(seed=seed, name=name) for seed in (0, 1) for name in "abcdefgh"]
    entries = [SimpleNamespace(item=SimpleNamespace(cell=cell)) for cell in cells]
    orders = [[entry.item.cell for entry in in_turn(entries, number)] for number in range(4)]
    assert [cell.name for cell in orders[0]] == list("abcdefgh" * 2), "a sweep alone keeps the study's order"
    assert len({order[0].name for order in orders}) == 4
    assert all([cell.seed for cell in order] == [0] * 8 + [1] * 8 for order in orders)
    with sweep_number(tmp_path) as first, sweep_number(tmp_path) as second:
        assert (first, second) == (0, 1)
    with sweep_number(tmp_path) as again:
        assert again == 0


def test_a_cell_that_another_sweep_marked_is_not_tried_again(study_file, tmp_path):
    entry, job = one_cell(study_file, tmp_path)
    entry.run.fail("failed", "by another sweep")
    assert bring_to_end(job, lambda *_: None, lambda: False) == Status.MARKED
    assert not (entry.run.folder / "checkpoints").exists()


class Recorder(Launcher):
    """Runs nothing; keeps the jobs of every round, and lets `during` act."""

    rounds, during = [], staticmethod(lambda: None)

    def run(self, jobs, on_tick, on_end, deadline=None):
        self.rounds.append([job.label for job in jobs])
        for job in jobs:
            on_end(End(job, Status.BUSY))
        self.during()


def test_a_sweep_looks_again_at_busy_cells_and_says_who_works_on_them(study_file, tmp_path, monkeypatch):
    pretend("here", errno.ENOSYS, monkeypatch.setattr)
    entry, _ = one_cell(study_file, tmp_path)
    ledger, said = Ledger(tmp_path / "runs", tmp_path / "data"), []
    monkeypatch.setattr("sweeps.sweep.make_launcher", lambda *_: Recorder(1))
    entry.run.create(entry.item.cell, ledger.stores(entry.study)["K=8"])
    options = SweepOptions(processes=1, track=False)
    monkeypatch.setattr(Recorder, "rounds", [])
    with locked(entry.run.lock):
        result = run_study(entry.study, ledger, options, said.append)
    assert result.not_run and not Recorder.rounds
    assert f"here:{this_process().pid} since" in "\n".join(said)
    # A process of another machine that gives no sign of life any more.
    dead = msgspec.structs.replace(this_process(), machine="there", host="there")
    leases.take_lease(entry.run.lock, dead, leases.newest_lease(entry.run.lock) + 1)
    run_study(entry.study, ledger, options, said.append)
    assert len(Recorder.rounds) == 1, "the cell is free after the silence"
    assert "there:" in "\n".join(said)


def test_a_cell_whose_fork_server_is_killed_is_not_at_fault():
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=time.sleep, args=(60,))
    process.start()
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
    process.join(30)
    os.kill(process.pid, signal.SIGKILL)
    end = Running(Progress(None), process, None, ()).end()
    assert end.status == Status.LOST and end.by_signal


def test_ray_is_never_asked_to_cancel_a_task_that_has_ended(monkeypatch):
    """Ray aborts the sweep's process if the cancellation meets the task's end."""
    ended, hanging, waiting = (_ray_task(name) for name in ("ended", "hanging", "waiting"))
    cancelled = []

    def wait(tasks, num_returns, timeout):
        return [ended.task], [task for task in tasks if task != ended.task]

    monkeypatch.setattr(ray_launcher, "_messages", lambda ray, board: {"hanging": ()})
    launcher = RayLauncher.__new__(RayLauncher)
    launcher._ray = SimpleNamespace(
        wait=wait,
        get=lambda task, timeout: None,
        cancel=lambda task, force=False: cancelled.append((task, force)),
        exceptions=SimpleNamespace(RayError=OSError),
    )
    board = SimpleNamespace(stop=SimpleNamespace(remote=lambda: None))
    launcher._stop([ended, hanging, waiting], board)
    assert cancelled == [("task waiting", False), ("task hanging", True), ("task waiting", True)]


def _ray_task(train: str) -> ray_launcher.Running:
    job = SimpleNamespace(run=SimpleNamespace(train=train))
    return ray_launcher.Running(SimpleNamespace(job=job), f"task {train}")
