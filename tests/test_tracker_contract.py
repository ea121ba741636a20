"""The contract of `sweeps.tracking.base.Tracker`, for every registered tracker and for a package's tracker."""

import dataclasses
import re
import sys

import pytest

from helpers.errors import refused
from helpers.packages import write_package
from helpers.paths import ROOT
from muvla.errors import MuvlaError
from sweeps.tracking.base import CellFacts, Point, StudyFacts, Tracker
from sweeps.tracking.facts import readings
from sweeps.tracking.mlflow import tracking_address
from sweeps.tracking.registry import TRACKERS, get_tracker
from sweeps.tracking.ui import runs_page

OUTSIDE = "text"  # the tracker of docs/extending/tracker.md
PAGE = (ROOT / "docs" / "extending" / "tracker.md").read_text(encoding="utf-8")
STUDY = StudyFacts("a_study", "Which one?", "- a note", "code1", "abc")
FACTORS = {"variant": "K=8", "seed": "0", "K": "8", "m": "4", "alpha": "1.0", "labels": "executed", "H": "1"}


@pytest.fixture(scope="module", autouse=True)
def package(tmp_path_factory):
    """The worked example of the documentation, installed as a package outside the repository."""
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    group, name, place = re.search(r'entry-points\."(.+?)"\]\n(\w+) = "(.+?)"', PAGE).groups()
    root = tmp_path_factory.mktemp("site")
    write_package(root, "muvla-text", {"muvla_text.py": code}, {group: {name: place}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(root), *sys.path])
        yield root


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A cell that trains, with one file."""
    folder = tmp_path_factory.mktemp("runs") / "abc123"
    (folder / "rows").mkdir(parents=True)
    files = (folder / "run.json", folder / "rows" / "r.jsonl")
    for file in files:
        file.write_text("{}", encoding="utf-8")
    points = (Point(25, 1025.0, {"loss": 0.5, "training-detail/gradient_read/7": 0.1}),)
    return CellFacts(
        "abc123", 0, "K=8, seed 0", "running", FACTORS, {"optimizer.lr": 0.1}, 1000.0, 1025.0, points, {}, files
    )


def done_of(running):
    points = (*running.curve, Point(50, 1050.0, {"loss": 0.25}))
    results = {"few.v1/none/success_rate": 0.9}
    return dataclasses.replace(running, state="done", ended=1100.0, curve=points, results=results, data=("d", "e" * 64))


@pytest.mark.parametrize("name", [*TRACKERS.members, OUTSIDE])
def test_a_cell_is_outdated_until_its_end_is_logged(name, running, tmp_path):
    """And stays finished for the next sweep, which opens the study again."""
    tracker = get_tracker(name)(tmp_path)
    assert isinstance(tracker, Tracker)
    tracker.open_study(STUDY)
    done, cells = done_of(running), {"abc123": 1}
    assert tracker.outdated(cells) == {"abc123"}
    tracker.log_cell(running)
    assert tracker.outdated(cells) == {"abc123"}
    tracker.log_cell(dataclasses.replace(done, state="failed", results={}))
    assert tracker.outdated(cells) == {"abc123"}, "a record that says failed is mended"
    for _ in range(2):
        tracker.log_cell(done)
    again = get_tracker(name)(tmp_path)
    again.open_study(STUDY)
    assert again.outdated(cells) == set() and again.outdated({"abc123": 2}) == {"abc123"}


def test_a_second_log_of_the_same_facts_adds_no_line(running, tmp_path):
    tracker = get_tracker("jsonl")(tmp_path)
    tracker.open_study(STUDY)
    for _ in range(2):
        tracker.log_cell(running)
    assert len(tracker.file.read_text(encoding="utf-8").splitlines()) == 2


def test_mlflow_has_true_times_factors_first_and_live_metrics(running, tmp_path):
    tracker = get_tracker("mlflow")(tmp_path)
    tracker.open_study(STUDY)
    client = tracker.client

    def cell():
        (run,) = client.search_runs([tracker.experiment], "tags.level = 'cell'")
        return run

    tracker.log_cell(running)
    assert cell().info.status == "RUNNING" and cell().data.metrics["loss"] == 0.5, "live"
    tracker.log_cell(done_of(running))
    run = cell()
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("FINISHED", 1_000_000, 1_100_000)
    assert [(p.step, p.timestamp, p.value) for p in client.get_metric_history(run.info.run_id, "loss")] == [
        (25, 1_025_000, 0.5),
        (50, 1_050_000, 0.25),
    ]
    assert run.data.metrics["few.v1/none/success_rate"] == 0.9
    assert FACTORS.items() <= run.data.params.items() and run.data.params["cell/optimizer.lr"] == "0.1"
    assert run.data.tags["mlflow.source.git.commit"] == "abc" and run.data.tags["mlflow.parentRunId"] == tracker.parent
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"run.json", "rows"}
    assert f"/experiments/{tracker.experiment}/runs?" in runs_page(tracking_address(tmp_path)), "the page of `make ui`"
    client.set_terminated(run.info.run_id, "FAILED")
    tracker.log_cell(done_of(running))
    assert (cell().info.status, cell().info.end_time) == ("FINISHED", 1_100_000)


def test_the_store_is_the_address_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert tracking_address(tmp_path) == "http://127.0.0.1:9"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert tracking_address(tmp_path).startswith("sqlite") and "mlflow.db" in tracking_address(tmp_path)


def test_lists_and_tables_of_the_log_are_diagnostics():
    row = {"update": 25, "loss": 0.5, "gradient_read": [None, 0.1], "loss_by_phase": {"cue": 0.2}}
    assert dict(readings(row)) == {
        "loss": 0.5,
        "training-detail/gradient_read/1": 0.1,
        "training-detail/loss_by_phase/cue": 0.2,
    }


def test_an_unknown_tracker_and_one_that_is_none_are_refused(tmp_path, monkeypatch):
    with refused("--tracker"):
        get_tracker("mlflaw")
    write_package(tmp_path, "muvla-no", {"muvla_no.py": "X = 3"}, {"muvla.trackers": {"no": "muvla_no:X"}})
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(MuvlaError) as info:
        get_tracker("no")
    assert info.value.field == "--tracker no"
