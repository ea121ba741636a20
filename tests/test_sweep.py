"""A whole study in processes: once, again, interrupted, with a failing cell, with and without MLflow."""

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings

import pytest

from analysis.report.contents import Report
from analysis.report.report import write_report
from helpers.errors import refused
from helpers.paths import ROOT
from helpers.studies import FEW, STUDY, one_cell
from muvla.checkpoints import native as ckpt
from muvla.config import TaskConfig, no_memory, tbptt
from muvla.config.serialization import replace
from muvla.data.mixture import open_data
from muvla.evaluation.results import NeverFired
from muvla.probes.base import Grid, Point
from muvla.runs.evaluate import Evaluator
from muvla.runs.results import result_rows
from muvla.runs.run import Run
from muvla.runs.train import train_cell
from muvla.utils.io import read_json, write_json
from sweeps.launchers import local
from sweeps.launchers.base import End, Status
from sweeps.launchers.local import LocalLauncher, run_in_process
from sweeps.launchers.registry import make_launcher
from sweeps.ledger import Ledger
from sweeps.loader import load_study
from sweeps.sweep import SweepOptions, finished_line, run_study
from sweeps.tracking.view import TrackingView
from sweeps.work import bring_to_end

pytestmark = pytest.mark.slow  # whole cells, many in processes of their own


@pytest.fixture(scope="module")
def swept(study_file, tmp_path_factory):
    """The study, run once in two processes with MLflow."""
    root = tmp_path_factory.mktemp("sweep")
    said = []
    ledger = Ledger(root / "runs", root / "data")
    result = run_study(load_study(study_file), ledger, SweepOptions(processes=2), said.append)
    return result, "\n".join(said), ledger


def test_every_cell_is_trained_evaluated_and_intervened_upon(swept):
    result, said, _ = swept
    assert not result.failed and not result.not_run
    assert {e.item.variant: len(e.complete_rows()) for e in result.entries} == {"none": 1, "K=8": 2}
    for entry in result.entries:
        assert entry.state == "done"
        assert all(len(rows) == FEW.episodes for rows in entry.complete_rows().values())
        assert (entry.run.folder / "train.jsonl").exists()
        assert all(record["code"] for record in entry.records().provenance.values())
    assert "[ 1/2]" in said and "[ 2/2]" in said and "choice" in said


def test_a_view_is_told_of_each_finished_cell_and_its_failure_stops_nothing(study_file, tmp_path, monkeypatch):
    def ended(self, jobs, on_tick, on_end, deadline):
        for job in jobs:
            on_end(End(job, Status.DONE))

    monkeypatch.setattr(LocalLauncher, "run", ended)
    ledger, told = Ledger(tmp_path / "runs", tmp_path / "data"), []
    options = SweepOptions(processes=1, track=False)
    run_study(load_study(study_file), ledger, options, lambda _: None, told.append)
    assert [entry.item.variant for entry in told] == ["none", "K=8"]

    def broken(entry):
        told.append(entry)
        raise RuntimeError("page 7")

    with pytest.warns(UserWarning, match="page 7"):
        result = run_study(load_study(study_file), ledger, options, lambda _: None, broken)
    assert len(told) == 3 and len(result.entries) == 2, "called once more, and then switched off"


def test_baselines_are_measured_unasked_where_no_simulator_is_needed(swept):
    """And stand beside the cells of a report; a second sweep measures none again."""
    result, said, ledger = swept
    assert said.count("few@1 expert") == 1
    (known,) = ledger.baselines(result.entries[0].study).values()
    assert {name: len(rows) for name, rows in known.rows.items()} == {"random": 20, "expert": 20}
    assert not known.absent and known.ideal["choice"] == pytest.approx(1 / 3)


def test_a_second_run_skips_what_is_done(swept, study_file):
    result, _, ledger = swept
    before = {e.run.train: sorted((e.run.folder / "rows").iterdir()) for e in result.entries}
    stamps = {p: p.stat().st_mtime_ns for files in before.values() for p in files}
    said = []
    started = time.monotonic()
    run_study(load_study(study_file), ledger, SweepOptions(processes=2), said.append)
    assert "2 cells are done and skipped, 0 to run" in "\n".join(said)
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps and time.monotonic() - started < 20


def test_every_cell_is_an_mlflow_run(swept):
    result, _, ledger = swept
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{ledger.root / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("tiny_study").experiment_id], "tags.level = 'cell'")
    assert {r.data.tags["train"] for r in runs} == {e.run.train for e in result.entries}
    one = next(r for r in runs if r.data.tags["variant"] == "K=8")
    assert one.info.status == "FINISHED" and one.data.params["cell/truncation"] == one.data.params["K"] == "8"
    assert "few.v1/none/touch_rate" in one.data.metrics and "loss" in one.data.metrics
    assert {
        "training-detail/loss_by_phase/decision",
        "training-detail/loss_by_chunk/0",
        "training-detail/gradient_read/7",
        "training-detail/gradient_written/0",
        "write_ratio",
        "training-detail/update_ratio/head",
        "peak_memory_mb",
    } <= one.data.metrics.keys()


def test_cells_that_were_done_without_tracking_are_logged_later(swept, tmp_path):
    from mlflow import MlflowClient

    result, _, _ = swept
    later = dataclasses.replace(result.entries[0].study, name="later")
    for _ in range(2):
        TrackingView("mlflow", tmp_path, later).reconcile(result.entries)
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("later").experiment_id], "tags.level = 'cell'")
    assert sorted(r.data.tags["train"] for r in runs) == sorted(e.run.train for e in result.entries)


@pytest.mark.parametrize("name", ["50% of all", "a%20b?c=d#[e]*"])
def test_a_folder_with_any_name_has_its_mlflow_database(swept, tmp_path, name):
    """The address of the database is made of its path."""
    database = tmp_path / name / "mlflow.db"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        tracker = TrackingView("mlflow", database.parent, swept[0].entries[0].study).tracker
    assert database.exists() and tracker.client.get_experiment_by_name("tiny_study") is not None
    assert [path.name for path in tmp_path.iterdir()] == [name], "no other folder was made"


def test_two_new_sweeps_make_one_database(tmp_path):
    """Each of them would make its tables; the second waits."""
    code = (
        "import sys, warnings; from pathlib import Path; from sweeps.tracking.base import StudyFacts\n"
        "from sweeps.tracking.mlflow import MlflowTracker\nwarnings.simplefilter('error', UserWarning)\n"
        "MlflowTracker(Path(sys.argv[1])).open_study(StudyFacts(sys.argv[2], '', '', '', None))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", code, tmp_path]
    processes = [subprocess.Popen([*words, name], env=environment, stderr=subprocess.PIPE) for name in ("a", "b")]
    assert [process.wait() for process in processes] == [0, 0], processes[0].stderr.read() + processes[1].stderr.read()


def test_a_broken_tracker_changes_no_result(swept, tmp_path):
    result, _, _ = swept
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.warns(UserWarning, match="Mlflow"):
        view = TrackingView("mlflow", blocked, result.entries[0].study)
    view.log(result.entries[0])


def test_results_do_not_depend_on_processes_or_tracking(swept, study_file, tmp_path):
    """The same rows from one process without MLflow, bit for bit."""
    result, _, ledger = swept
    again = run_study(
        load_study(study_file), Ledger(tmp_path, ledger.data), SweepOptions(processes=1, track=False), lambda _: None
    )
    plain = lambda rows: [dataclasses.replace(r, seconds=0, environment_seconds=0, provenance="") for r in rows]  # noqa: E731
    for a, b in zip(result.entries, again.entries, strict=True):
        assert a.run.train == b.run.train
        for condition, rows in a.complete_rows().items():
            assert plain(rows) == plain(b.complete_rows()[condition])


def test_a_failing_cell_is_marked_and_costs_nobody_else(study_file, tmp_path):
    study = load_study(study_file)
    explosive = dataclasses.replace(
        study,
        variants={"K=8": tbptt(8, 4), "explodes": no_memory() | {"optimizer.lr": 1e30}},
        factors=(*study.factors, "optimizer.lr", "optimizer.clip"),
        base=replace(study.base, {"optimizer.clip": None}),
    )
    said = []
    ledger, options = Ledger(tmp_path / "runs", tmp_path / "data"), SweepOptions(processes=2, track=False)
    result = run_study(explosive, ledger, options, said.append)
    (failed,) = result.failed
    assert failed.item.variant == "explodes" and failed.state == "not a measurement"
    assert "--retry-failed" in "\n".join(said) and not failed.complete_rows()
    assert next(e for e in result.entries if e.item.variant == "K=8").state == "done"
    said.clear()
    run_study(explosive, ledger, options, said.append)
    assert "0 to run" in "\n".join(said), "nothing is retried silently"
    said.clear()
    run_study(explosive, ledger, dataclasses.replace(options, retry_failed=True), said.append)
    assert "1 to run" in "\n".join(said)


def test_what_never_fires_costs_its_condition_alone(study_file, tmp_path):
    """Its cell is done, the other conditions are there, and it is not tried again."""
    entry, job = one_cell(study_file, tmp_path)
    few, later = entry.study.protocols[0], "drop@first_decision+11"
    grid = Grid("late", 1, tuple(Point(few, name, (("what", name),)) for name in ("none", later)), x="what")
    late = dataclasses.replace(entry.study, interventions=("zero@first_decision+11", "zero"), probes=(grid,))
    entry = dataclasses.replace(entry, study=late)
    job = dataclasses.replace(job, missing=tuple(entry.missing()))
    assert len(job.missing) == 4 and bring_to_end(job, lambda *_: None, lambda: False) == Status.DONE
    assert entry.state == "done" and not entry.missing() and {i for _, i in entry.summaries()} == {"none", "zero"}
    assert set(entry.never_fired) == {("few@1", "zero@first_decision+11"), ("few@1", later)}
    records = entry.records()
    assert records.never_fired == (("few@1", "zero@first_decision+11"),), "what a grid alone asks for is told there"
    assert [(p.intervention, p.never_fired) for p in records.grids[0].points] == [("none", False), (later, True)]
    assert "zero@first_decision+11" in finished_line(entry, 1, 1, 0.0)
    with refused("intervention zero@first_decision+11", NeverFired):
        Evaluator(entry.run).evaluate(late.protocols[0], "zero@first_decision+11")


def test_a_killed_process_costs_its_cell(study_file, tmp_path):
    """Through the launcher: SIGKILL of the worker in the middle of training."""
    entry, job = one_cell(study_file, tmp_path, 2000)
    ended = []

    def kill(running):
        if running and running[0].fraction > 0:
            os.kill(entry.run.owner.pid, signal.SIGKILL)

    LocalLauncher(1).run([job], kill, ended.append)
    (end,) = ended
    assert end.status == Status.LOST and str(-signal.SIGKILL) in end.message
    assert entry.run.owner is None, "the kernel has released its lock"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_cell_that_a_signal_ends_is_not_marked_and_the_same_command_continues_it(
    study_file, tmp_path, monkeypatch, number
):
    """As by too little memory, or by a scheduler. The signal says nothing about the cell."""
    entry, _ = one_cell(study_file, tmp_path, 300)
    ledger, said = Ledger(tmp_path / "runs", tmp_path / "data"), []
    start, sent = LocalLauncher._start, []

    def ended_when_it_trains(self, job, places):
        item = start(self, job, places)
        poll = item.poll

        def poll_and_end():
            poll()
            if not sent and item.progress.fraction > 0:
                sent.append(item.process.pid)
                os.kill(item.process.pid, number)

        item.poll = poll_and_end
        return item

    with monkeypatch.context() as patch:
        patch.setattr(LocalLauncher, "_start", ended_when_it_trains)
        result = run_study(entry.study, ledger, SweepOptions(1, track=False), said.append)
    assert sent and entry.run.failure is None and entry.state == "partial"
    assert [e.run.train for e in (*result.failed, *result.not_run)] == [entry.run.train]
    result = run_study(entry.study, ledger, SweepOptions(1, track=False), said.append)
    assert not result.failed and not result.not_run and entry.state == "done"


def test_a_cell_that_dies_before_it_can_mark_itself_is_marked_for_it(study_file, tmp_path):
    """Its log cannot even be opened. Nothing is lost silently: marked, named, and no success."""
    entry, _ = one_cell(study_file, tmp_path)
    (entry.run.folder / "log.txt").mkdir(parents=True)
    said = []
    result = run_study(
        entry.study, Ledger(tmp_path / "runs", tmp_path / "data"), SweepOptions(1, track=False), said.append
    )
    assert [e.run.train for e in result.failed] == [entry.run.train]
    assert "status 1" in "\n".join(said)


def test_changed_data_are_not_trained_on(study_file, tmp_path):
    entry, job = one_cell(study_file, tmp_path)
    folder = open_data(job.run.data, job.cell.data).path
    file = folder / "images.bin"
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    with refused(str(folder)):
        train_cell(entry.run, entry.item.cell, open_data(job.run.data, job.cell.data), "cpu")


def test_a_parent_that_is_gone_stops_its_cells_and_marks_none(study_file, tmp_path):
    """kill -9 of the sweep itself: the running cell checkpoints, and a rerun continues it."""
    entry, job = one_cell(study_file, tmp_path, 2000)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=run_in_process, args=(job, sender))
    process.start()
    sender.close()
    assert receiver.poll(120)
    receiver.close()
    process.join(120)
    assert process.exitcode == Status.STOPPED
    assert entry.run.failure is None and entry.state == "partial"


def test_the_time_limit_stops_cleanly_and_a_rerun_continues(study_file, tmp_path):
    """A training that no machine ends in time is stopped twice, and is further the second time."""
    study = load_study(study_file).with_base({"budget.updates": 1_000_000}).narrowed(variants=("K=8",))
    ledger = Ledger(tmp_path / "runs", tmp_path / "data")
    reached = []
    for _ in range(2):
        result = run_study(study, ledger, SweepOptions(processes=1, track=False, time_limit=6.0), lambda _: None)
        (entry,) = result.not_run
        assert not result.failed and entry.state == "partial"
        reached.append(ckpt.load(ckpt.latest(entry.run.folder / "checkpoints")).update)
    assert 0 < reached[0] < reached[1], "the running cell checkpointed when it was stopped, and went on from there"


def muvla(*arguments, cwd, **kwargs):
    return subprocess.Popen(
        [sys.executable, "-m", "muvla.cli", *map(str, arguments)],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **kwargs,
    )


def test_ctrl_c_exits_130_and_the_same_command_continues(tmp_path):
    (tmp_path / "study.py").write_text(STUDY.format(updates=60))
    process = muvla("sweep", tmp_path, "--no-tracking", "--processes", 2, cwd=tmp_path, start_new_session=True)
    while not list(tmp_path.glob("runs/*/train.jsonl")):  # until a cell has written that it trains
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command continues" in errors and "Traceback" not in errors
    again = muvla("sweep", tmp_path, "--no-tracking", cwd=tmp_path)
    out, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert "[ 2/2]" in out


def test_a_locked_cell_is_left_alone(study_file, tmp_path):
    """Two sweeps over one ledger do not train a cell twice, and a dead owner holds nothing."""
    entry, job = one_cell(study_file, tmp_path)
    entry.run.create(entry.item.cell, open_data(job.run.data, job.cell.data))
    code = (
        "import sys, time; from pathlib import Path; from muvla.utils.locks import locked\n"
        f"with locked(Path({str(entry.run.folder / 'lock')!r})):\n    print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline().strip() == "held"
    assert entry.state == "running" and entry.run.owner.pid == other.pid
    said = []
    ledger = Ledger(tmp_path / "runs", tmp_path / "data")
    result = run_study(entry.study, ledger, SweepOptions(processes=1, track=False), said.append)
    assert str(other.pid) in "\n".join(said)
    assert [e.run.train for e in result.not_run] == [entry.run.train], "nobody takes it for finished"
    assert bring_to_end(job, lambda *_: None, lambda: False) == Status.BUSY, "locked only after the plan was made"
    assert entry.run.failure is None
    with refused(str(entry.run.folder / "lock")) as info, entry.run.working():
        pass
    assert str(other.pid) in info.value.got
    other.kill()
    other.wait()
    with entry.run.working():
        assert entry.state == "running"
    assert entry.run.owner is None


def test_changed_data_are_noticed_before_they_reach_a_result(swept, tmp_path):
    result, _, ledger = swept
    entry = result.entries[0]
    run = Run(tmp_path, ledger.data, entry.run.train)
    write_json(run.folder / "run.json", read_json(entry.run.folder / "run.json") | {"sha256": "0" * 64})
    with refused(f"{ledger.data}: {entry.run.store().name}"):
        run.store()


def test_a_study_of_two_protocols_reports_both(study_file, tmp_path):
    """Protocols of one's own need no registry, and no protocol overwrites another in a table."""
    study = load_study(study_file)
    short = dataclasses.replace(
        study.protocols[0], name="second", episodes=6, slots=3, task=TaskConfig("RecallPosition3-v0", delay=(4, 4))
    )
    study = dataclasses.replace(study, protocols=(*study.protocols, short))
    ledger = Ledger(tmp_path / "runs", tmp_path / "data")
    result = run_study(study, ledger, SweepOptions(processes=2, track=False), lambda _: None)
    frame = write_report(
        [e.records() for e in result.entries], tmp_path / "out", Report("two", "t", "c", "", ()), say=lambda _: None
    )
    assert set(frame["protocol"]) == {"few@1", "second@1"}
    assert set(frame[frame["protocol"] == "second@1"]["episodes"]) == {6}
    text = (tmp_path / "out" / "report.md").read_text()
    assert "`second@1`, 6" in text and "`few@1`, 20" in text
    assert (tmp_path / "out" / "choice-second.png").exists()
    lengths = {r.delay_length for e in result.entries for r in result_rows(e.run, short, "none")}
    assert lengths == {4}


def test_a_marked_cell_enters_no_table(swept, tmp_path):
    import shutil

    result, _, ledger = swept
    entry = next(e for e in result.entries if e.item.variant == "K=8")
    copy = dataclasses.replace(entry, run=Run(tmp_path, ledger.data, entry.run.train))
    shutil.copytree(entry.run.folder, copy.run.folder)
    assert len(copy.records().rows) == 2
    copy.run.fail("not a measurement", "the guard leaked")
    assert copy.records().rows == {} and copy.records().state == "not a measurement"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"processes": 0}, "--processes"),
        ({"processes": 1, "threads": 0}, "--threads"),
        ({"processes": 1, "time_limit": 0}, "--time-limit"),
    ],
)
def test_bad_options_are_refused(options, field):
    with refused(field):
        SweepOptions(**options)


def test_processes_follow_what_this_process_may_use(monkeypatch):
    monkeypatch.setattr(local, "usable_cores", lambda: 5)
    assert make_launcher("local", None, {}, "cpu").processes == 5
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert [make_launcher("local", None, {}, name).processes for name in ("cuda", "cuda:1")] == [3, 1], (
        "GPUs are shared"
    )


@pytest.mark.parametrize(("processes", "at_once"), [(1, 1), (9, 2)])
def test_cells_share_the_cores_among_their_simulators(study_file, tmp_path, monkeypatch, processes, at_once):
    """As many cells as run at once, however many processes are allowed."""
    told = []
    monkeypatch.setattr(LocalLauncher, "run", lambda self, jobs, *_: told.extend(jobs))
    ledger = Ledger(tmp_path / "runs", tmp_path / "data")
    run_study(load_study(study_file), ledger, SweepOptions(processes=processes, track=False), lambda _: None)
    assert [job.at_once for job in told] == [at_once] * 2
    seen = []
    monkeypatch.setattr("sweeps.work.default_workers", lambda one, at_once: seen.append(at_once) or 7)
    monkeypatch.setattr(Evaluator, "evaluate", lambda self, *arguments: seen.append(arguments[-1]) or [])
    assert bring_to_end(told[0], lambda *_: None, lambda: False) == Status.DONE
    assert seen == [at_once, 7]


def test_the_budget_study_from_plan_to_table(tmp_path):
    """experiments/recall_budget with a tiny budget: W, U and frames of all three regimes in one table."""
    study = load_study(ROOT / "experiments" / "recall_budget")
    short = dataclasses.replace(study.protocols[0], name="short", episodes=4, slots=4)
    study = dataclasses.replace(study.with_base({"budget.updates": 2, "data.dataset.episodes": 24}), protocols=(short,))
    study = study.narrowed(seeds=(0,))
    ledger, said = Ledger(tmp_path / "runs", tmp_path / "data"), []
    result = run_study(study, ledger, SweepOptions(processes=2, track=False), said.append)
    assert not result.failed and not result.not_run and len(result.entries) == 7, "\n".join(said)
    updates = {e.item.variant: ckpt.latest(e.run.folder / "checkpoints").name for e in result.entries}
    assert updates["K=1, matched frames"] == "update-000016" and updates["K=1, published"] == "update-000002"
    told = Report(study.name, study.title, "muvla sweep", study.notes, ())
    write_report([e.records() for e in result.entries], tmp_path / "out", told, say=said.append)
    table = [line.split(" | ")[:5] for line in (tmp_path / "out" / "main.md").read_text().splitlines()]
    assert [cell.strip("| ") for cell in table[0]] == ["variant", "W", "U", "frames", "seed"]
    assert [row[1:4] for row in table[2:9]] == [
        ["8", "2", "256"],
        ["1", "16", "256"],
        ["1", "2", "32"],
        ["8", "2", "256"],
        ["2", "8", "256"],
        ["2", "2", "64"],
        ["8", "2", "256"],
    ]
