"""What goes wrong around a cell, and whose fault it is: the machine's, the input's, or the measurement's."""

import errno
import json
import multiprocessing
import os
import re
import signal
import subprocess
from pathlib import Path

import gymnasium
import pytest
from gymnasium import spaces

from helpers.errors import printed_field, refused
from helpers.studies import FEW, STUDY, one_cell
from muvla.cli.main import EXIT_BAD_INPUT, main
from muvla.errors import NotAMeasurement
from muvla.evaluation import policy_actor
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.records import result_id
from muvla.evaluation.rollout import Rollout
from muvla.runs.evaluate import Evaluator
from muvla.runs.results import result_rows
from muvla.runs.run import NOT_A_MEASUREMENT
from muvla.utils import io as files
from muvla.utils.io import read_lines, write_json
from muvla.utils.locks import holder, locked
from sweeps.launchers.base import Status
from sweeps.launchers.local import run_in_process
from sweeps.tracking.view import TrackingView
from sweeps.work import bring_to_end

pytestmark = pytest.mark.slow  # whole cells, some in processes of their own
PROTOCOL = "recall-position3-rh@1"


def test_a_disk_that_is_really_full_marks_nothing_and_a_rerun_continues(study_file, tmp_path, small_disk):
    """A checkpoint of this cell takes 3 MB; whatever library writes it, its error must come out as the disk's."""
    (tmp_path / "runs").symlink_to(small_disk)
    entry, job = one_cell(study_file, tmp_path)
    reported = []
    assert bring_to_end(job, lambda *message: reported.append(message), lambda: False) == Status.NO_DISK
    assert "No space left" in reported[-1][0] and "free some space" in reported[-1][0]
    assert entry.run.failure is None and entry.state == "partial" and entry.run.owner is None
    assert main(["train", str(study_file), *at(tmp_path), "--variant", entry.item.variant]) == EXIT_BAD_INPUT


def test_a_shared_folder_that_is_read_only_is_one_error_and_the_same_command_continues(
    study_file, tmp_path, small_disk, capsys
):
    words = ["sweep", str(study_file), "--seeds", "0", "--variant", "none", "--no-tracking", "--time-limit", "0.0001"]
    words += ["--runs", str(small_disk / "runs"), "--data", str(tmp_path / "data")]
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert main(words) == EXIT_BAD_INPUT and printed_field(capsys) == str(small_disk / "runs")
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert main(words) == 0 and (small_disk / "runs").is_dir()


def at(root):
    return ["--runs", str(root / "runs"), "--data", str(root / "data")]


def test_after_a_full_disk_a_rerun_continues(study_file, tmp_path, monkeypatch):
    entry, job = one_cell(study_file, tmp_path)
    reported = []

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        assert bring_to_end(job, lambda *message: reported.append(message), lambda: False) == Status.NO_DISK
    assert "free some space" in reported[-1][0]
    assert entry.run.failure is None and entry.run.owner is None
    assert bring_to_end(job, lambda *message: reported.append(message), lambda: False) == Status.DONE
    assert entry.state == "done"


def test_a_disk_that_is_full_from_the_start_marks_nothing(study_file, tmp_path, monkeypatch):
    """Not even the log of the cell's process can be opened."""
    entry, job = one_cell(study_file, tmp_path)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    real = Path.mkdir

    def full(self, *args, **kwargs):
        if self == entry.run.folder:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", full)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        run_in_process(job, sender)
    assert end.value.code == Status.NO_DISK and "free some space" in receiver.recv()[0] and entry.run.failure is None


@pytest.fixture
def done(study_file, tmp_path):
    entry, job = one_cell(study_file, tmp_path)
    assert bring_to_end(job, lambda *_: None, lambda: False) == Status.DONE
    return entry


def test_a_broken_invariant_marks_the_cell_whoever_asked(done, tmp_path, monkeypatch, capsys):
    """A guard that leaks in `muvla intervene` takes the cell's numbers back, the earlier ones too."""

    def leaks(*_):
        raise NotAMeasurement("model.guard", got="a leak", expected="none", remedy="report it")

    monkeypatch.setattr(policy_actor, "leak_test", leaks)
    assert done.complete_rows()
    assert main(["intervene", done.run.train, "noise_unit", "--protocol", PROTOCOL, *at(tmp_path)]) == EXIT_BAD_INPUT
    assert "a leak" in capsys.readouterr().err
    assert done.state == NOT_A_MEASUREMENT and not done.complete_rows()
    assert main(["evaluate", done.run.train, "--protocol", PROTOCOL, *at(tmp_path)]) == EXIT_BAD_INPUT
    assert "marked 'not a measurement'" in capsys.readouterr().err, "not even what was computed before is printed"


def test_what_was_no_measurement_is_none_after_a_retry_either(done):
    """Taking the mark away must not give its numbers back: the cell is run from nothing, what was is kept."""
    done.run.fail(NOT_A_MEASUREMENT, "a leak")
    done.run.clear_failure()
    assert done.run.failure is None and not done.complete_rows() and not done.run.is_trained
    assert done.state == "partial"
    aside = {p.name for p in (done.run.folder / "set-aside-1").iterdir()}
    assert {"checkpoints", "rows", "failure.json"} <= aside
    done.run.fail("failed", "killed")
    done.run.clear_failure()
    assert done.run.failure is None and not (done.run.folder / "set-aside-2").exists()


def test_a_killed_training_leaves_its_provenance(done):
    """Before anything is computed: a later report knows of every version that had a hand in it."""
    with done.run.timed("training", "somebody"):
        lines = read_lines(done.run.folder / "timings.jsonl")
    assert lines[-1] == {"what": "training", "seconds": 0.0, "provenance": "somebody"}


def test_a_failure_takes_nothing_back_that_was_complete(done):
    before = done.complete_rows()
    done.run.fail("failed", "its process was killed")
    assert done.state == "failed" and done.complete_rows() == before


def test_another_robot_is_one_error(done):
    class Variant(gymnasium.Env):
        observation_space = spaces.Dict(
            images=spaces.Box(0, 255, (2, 32, 32, 3), "uint8"), proprio=spaces.Box(-1, 1, (7,))
        )
        action_space = spaces.Box(-1, 1, (7,))

    policy = done.run.load_policy("cpu")
    with refused("protocol.task") as info:
        Rollout(PolicyActor(policy, done.run.checkpoint().statistics, get_protocol(PROTOCOL)), Variant)
    assert re.findall(r"\d+", info.value.got) == ["2", "7", "7"], "cameras, proprio and action numbers of the task"
    assert re.findall(r"\d+", info.value.expected) == ["2", "2", "2"]


def test_a_report_asks_for_the_provenance_of_its_rows_alone(done):
    """A later `muvla intervene` by another version, for a condition outside the study, changes nothing here."""
    before = done.records().provenance
    assert len({record["code"] for record in before.values()}) == 1
    write_json(done.run.folder / "provenance" / "0123456789ab.json", next(iter(before.values())) | {"code": "another"})
    assert done.records().provenance == before


def test_a_result_is_continued_where_it_was_begun_or_not_at_all(done, monkeypatch):
    """Its first episodes were another simulator's, or had other assets: the rows of one result are of one."""
    one = FEW
    whole = result_rows(done.run, one, "none")
    path = done.run.rows / f"{result_id(done.run.train, one, 'none')}.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    monkeypatch.setattr("muvla.runs.evaluate.backends", lambda task: "physx_cuda, assets 0123")
    with refused(f"rows of {done.run.train}, {one.id}, none") as info:
        Evaluator(done.run).evaluate(one, "none")
    assert "physx_cuda, assets 0123" in info.value.got
    assert str(path) in info.value.remedy and path.read_text() == "".join(lines[:-1])
    lost = json.loads(lines[0]) | dict.fromkeys(("target", "choice", "success_once"), None) | {"error": "lost"}
    path.write_text(json.dumps(lost) + "\n")
    rows = Evaluator(done.run).evaluate(one, "none")
    assert len(rows) == len(whole), "an error measured nothing, wherever it was"


def test_looking_at_a_lock_never_makes_its_owner_give_up(tmp_path):
    lock = tmp_path / "lock"
    pid = os.fork()
    if pid == 0:  # a process of its own, as a lock is held against other processes
        while True:
            holder(lock)
    try:
        for _ in range(200):
            with locked(lock):
                pass
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_lock_that_is_held_is_refused_after_a_moment(tmp_path):
    with locked(tmp_path / "lock"), refused(str(tmp_path / "lock")):
        locked(tmp_path / "lock").__enter__()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (f'(get_protocol("{PROTOCOL}"), get_protocol("recall-position3-ol4@1"))', "recall-position3-ol4@1: h"),
        (f'(get_protocol("{PROTOCOL}"), get_protocol("{PROTOCOL}"))', "protocol"),
        (f'(replace_(get_protocol("{PROTOCOL}"), episodes=10),)', "protocol"),
        (f'(replace_(get_protocol("{PROTOCOL}"), name="own", seed=10),)', "own@1: seed"),
        (f'(replace_(get_protocol("{PROTOCOL}"), name="own", image_size=64),)', "own@1: image_size"),
        ('(get_protocol("mikasa-remember-color3-quick-rh@1"),)', "task"),
        ('(get_protocol("recall-color3-rh@1"),)', "recall-color3-rh@1: task"),
    ],
)
def test_a_protocol_that_does_not_fit_is_refused_before_anything_is_trained(tmp_path, capsys, change, field):
    text = STUDY.format(updates=6).replace("(few,)", change)
    (tmp_path / "study.py").write_text(text)
    assert main(["sweep", str(tmp_path), *at(tmp_path)]) == EXIT_BAD_INPUT
    assert printed_field(capsys).endswith(field)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"regime": "openloop"},
        {"tick": "calls"},
        {"step_limit": 0},
        {"image_size": -3},
        {"episodes": 1.5},
        {"version": 0},
        {"version": True},
        {"episodes": True},
        {"slots": 2.0},
        {"seed": 1.5},
        {"seed": True},
        {"seed": None},
        {"seed": float("nan")},
        {"name": "../x"},
        {"name": "/x"},
        {"name": ".x"},
        {"name": "a:b"},
        {"name": "a\nb"},
        {"name": ""},
        {"name": "x" * 101},
        {"name": 3},
        {"name": ["x"]},
        {"break_at_success": "no"},
        {"task": "RecallPosition3-v0"},
        {"regime": ["receding"]},
        {"tick": float("nan")},
    ],
    ids=str,
)
def test_a_bad_protocol_names_its_field(change):
    with refused(f"protocol.{next(iter(change))}"):
        Protocol(**{"name": "x", "version": 1, "task": get_protocol(PROTOCOL).task, "episodes": 5} | change)


def test_the_curve_of_a_cell_that_was_stopped_is_continued_in_mlflow(done, tmp_path):
    """Logged when it stopped and again when it ended: no point is missing, none is there twice."""
    file, view = done.run.folder / "train.jsonl", TrackingView("mlflow", tmp_path, done.study)
    tracker, cells = view.tracker, "tags.level = 'cell'"
    (line,) = read_lines(file)[:1]
    for updates in ((1, 2), (1, 2, 3)):
        file.write_text("".join(json.dumps(line | {"update": u}) + "\n" for u in updates))
        view.log(done)
        (run,) = tracker.client.search_runs([tracker.experiment], cells)
        points = tracker.client.get_metric_history(run.info.run_id, "loss")
        assert [p.step for p in points] == list(updates)
    done.run.fail(NOT_A_MEASUREMENT, "a leak")
    done.run.clear_failure()
    file.write_text(json.dumps(line | {"update": 2, "loss": 0.125}) + "\n")
    view.log(done)
    runs = tracker.client.search_runs([tracker.experiment], cells)
    curves = {r.data.tags["start"]: tracker.client.get_metric_history(r.info.run_id, "loss") for r in runs}
    assert [(p.step, p.value) for p in curves["1"]] == [(2, 0.125)], "started from nothing, it is a run of its own"
