"""Predictions are registered before the first row; later ones are told apart."""

import dataclasses
import json
import threading

import pytest

from analysis.report.summary import verdict_sentence
from analysis.verdicts import verdict_frame, verdict_table
from helpers.committed import DATA, commit, study_results
from helpers.errors import refused
from helpers.probe_study import LOWER
from helpers.studies import STUDY, at
from muvla.cli.main import main
from muvla.config import identity
from muvla.errors import DiskError
from sweeps import registration
from sweeps.ledger import Ledger
from sweeps.loader import load_study
from sweeps.registration import NAME, has_rows, read_registrations, register, spare_file

SECOND = dataclasses.replace(LOWER, text="zero lowers success", quantity="own", expected="lower")
STUDY_FILE = f"""{STUDY.format(updates=2)}
from helpers.probe_study import LOWER
study = replace_(study, predictions=(LOWER,))
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "study.py").write_text(STUDY_FILE)
    return tmp_path


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    file = tmp_path_factory.mktemp("declared") / "study.py"
    file.write_text(STUDY_FILE)
    return load_study(file)


def with_predictions(study, *predictions):
    return dataclasses.replace(study, predictions=predictions)


def enter(study, place, rows):
    register(study, place, place / "runs", rows, say=lambda _: None)


def statuses(study, place, rows=True):
    found = read_registrations(study, place, place / "runs", rows).values()
    return [status.split(" 2")[0] for status in found]


def test_a_prediction_is_registered_post_hoc_or_neither(study, place):
    assert statuses(study, place, rows=False) == ["registered when the sweep starts"]
    assert statuses(study, place) == ["not registered"], "rows, and nothing tells"
    enter(study, place, rows=False)
    assert statuses(study, place) == ["registered"]
    both = with_predictions(study, LOWER, SECOND)
    assert statuses(both, place) == ["registered", "post hoc"], "not in the register, which is older"
    enter(both, place, rows=True)
    assert statuses(both, place) == ["registered", "post hoc"]
    changed = with_predictions(study, dataclasses.replace(LOWER, expected="lower"))
    assert statuses(changed, place) == ["post hoc"]
    enter(study, place, rows=True)
    assert statuses(study, place) == ["registered"], "the first entry counts"
    lines = [json.loads(line) for line in (place / "results" / NAME).read_text().splitlines()]
    assert [(line["rows"], len(line["predictions"])) for line in lines] == [(False, 1), (True, 2), (True, 1)]


def test_rows_that_are_older_than_the_register_make_nothing_post_hoc(study, place):
    enter(study, place, rows=True)
    assert statuses(study, place) == ["not registered"]
    enter(with_predictions(study, LOWER, SECOND), place, rows=True)
    assert statuses(with_predictions(study, SECOND), place) == ["post hoc"]


def test_a_study_without_predictions_is_registered_so_that_later_ones_are_known_to_be_later(study, place):
    enter(with_predictions(study), place, rows=False)
    assert statuses(study, place) == ["post hoc"] and statuses(with_predictions(study), place) == []


def test_a_narrowed_study_keeps_the_status_and_another_study_has_its_entries(study, place):
    wide = with_predictions(study, dataclasses.replace(LOWER, variants=("K=8", "none")))
    enter(wide, place, rows=False)
    assert statuses(wide.narrowed(variants=("K=8",)), place) == ["registered"]
    assert statuses(dataclasses.replace(wide, name="another"), place) == ["not registered"]


def test_an_edited_register_is_refused(study, place):
    enter(study, place, rows=False)
    file = place / "results" / NAME
    file.write_text(file.read_text().replace('"null"', '"lower"'))
    with refused(f"{file}:1: sha256"):
        statuses(study, place)
    file.write_text('{"study": 1}\n')
    with refused(f"{file}:1: study"):
        statuses(study, place)


def test_a_folder_that_cannot_be_written_leaves_the_register_in_the_runs_folder(study, place, monkeypatch):
    append = registration.append_line

    def read_only(path, data):
        if path.parent.name == "results":
            raise DiskError(str(path), got="Read-only file system", expected="a writable disk", remedy="none")
        append(path, data)

    monkeypatch.setattr(registration, "append_line", read_only)
    with pytest.warns(UserWarning, match="registered"):
        enter(study, place, rows=False)
    assert spare_file(place / "runs", study).exists() and statuses(study, place) == ["registered"]


def test_two_sweeps_at_once_leave_one_entry(study, place):
    threads = [threading.Thread(target=enter, args=(study, place, False)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len((place / "results" / NAME).read_text().splitlines()) == 1


def test_rows_are_those_of_the_runs_folder_or_committed_ones(study, place):
    ledger = Ledger(place / "runs", place / "data")
    assert not has_rows(study, place, ledger)
    of_data = lambda item: identity.train_id(item.cell, DATA, None)  # noqa: E731
    commit(place, study_results(dataclasses.replace(study, name="another"), of_data))
    assert not has_rows(study, place, ledger)
    file = commit(place, study_results(study, of_data))
    assert has_rows(study, place, ledger)
    file.write_bytes(b"damaged")
    assert has_rows(study, place, ledger), "rows that nobody can read are rows"
    file.unlink()
    assert not has_rows(study, place, ledger)
    file.with_name("cells.csv").write_text("order,variant\n")
    assert has_rows(study, place, ledger), "rates of a run whose rows are not committed"


def test_a_plan_registers_nothing_and_says_the_status(place, capsys):
    assert main(["sweep", str(place), "--plan", *at(place)]) == 0
    assert "Predictions: 1, of them 1 registered when the sweep starts" in capsys.readouterr().out
    assert not (place / "results").exists()


def test_verdicts_and_summary_show_the_status(study):
    results = study_results(study, lambda item: f"t{item.variant}")
    frame = verdict_frame(results.records, study.predictions, {LOWER.canonical(): "registered 2026-11-28T21:20:05Z"})
    assert list(frame["registration"]) == ["registered 2026-11-28T21:20:05Z"]
    assert "registration" in verdict_table(frame) and "(1 registered)" in verdict_sentence(frame)
    assert "(1 not registered)" in verdict_sentence(verdict_frame(results.records, study.predictions))
