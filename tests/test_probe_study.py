"""Probes and predictions of a study: what is run, what is kept, what is skipped, and what the report makes of it."""

import dataclasses

import pandas as pd
import pytest

from helpers.errors import printed_field, refused
from helpers.probe_study import ANY, BASE, CARRIED, GRID, LOWER, WIDTHS
from helpers.probes import MEASUREMENTS
from muvla.cli.main import EXIT_BAD_INPUT, main
from muvla.config import dummy, no_memory, tbptt
from muvla.errors import MuvlaError
from muvla.evaluation.catalog import get_protocol
from muvla.probes.base import Grid, Measurement, Point, ScheduledMeasurement
from muvla.probes.registry import get_probe
from muvla.runs.evaluate import Evaluator
from muvla.runs.probe import frame_file, measurement_meta, take_measurement
from muvla.utils.io import read_json, write_json
from sweeps.committed import load_results
from sweeps.ledger import Ledger
from sweeps.loader import load_study
from sweeps.plan import plan_text
from sweeps.study import Study
from sweeps.sweep import SweepOptions, run_study


def at_zero(protocol, intervention):
    return dataclasses.replace(GRID, points=(Point(protocol, intervention, GRID.points[0].coordinates),))


@pytest.fixture
def study(base):
    return Study(
        "probed",
        "a study with probes",
        base,
        {"none": no_memory(), "dummy": dummy(4), "K=8": tbptt(8, 4)},
        ("memory.kind", "memory.m", "truncation"),
        (0,),
        (BASE,),
        ("zero",),
        (GRID, ScheduledMeasurement(WIDTHS, BASE, 2)),
        (LOWER,),
    )


def test_a_grids_points_are_conditions_once_and_those_of_a_memory_for_cells_that_have_one(study):
    by_variant = {c.variant: [(p.name, i) for p, i in study.conditions(c.cell)] for c in study.cells()}
    assert by_variant["none"] == [("few", "none"), ("few-longer", "none")]
    assert by_variant["dummy"] == by_variant["K=8"] == [(p, i) for p in ("few", "few-longer") for i in ("none", "zero")]


def test_measurements_are_of_cells_that_have_what_they_read(study):
    study = dataclasses.replace(
        study, probes=tuple(ScheduledMeasurement(one, BASE, 2) for one in (WIDTHS, CARRIED, ANY))
    )
    taken = {c.variant: [one.measurement.name for one in study.measurements_of(c.cell)] for c in study.cells()}
    assert taken == {"none": ["any"], "dummy": ["widths", "any"], "K=8": ["widths", "carried", "any"]}


def test_the_plan_counts_what_probes_add(study):
    text = plan_text(study, None, None)
    assert "limits@1: 4 conditions" in text and "widths@1: a measurement on 2 episodes of few@1" in text
    assert "Conditions in all: 10, at most 4 a cell; measurements: 2" in text and "Predictions" in text


def test_interventions_of_predictions_have_their_canonical_names(study):
    changed = dataclasses.replace(study, predictions=(dataclasses.replace(LOWER, intervention="zero@0.."),))
    assert changed.predictions[0].intervention == "zero"
    changed.check()


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        ({"predictions": (dataclasses.replace(LOWER, variants=("K=9",)),)}, "K=9"),
        ({"predictions": (dataclasses.replace(LOWER, intervention="drop"),)}, "drop under few@1"),
        ({"predictions": (dataclasses.replace(LOWER, versus="drop"),)}, "drop under few@1"),
        ({"predictions": (dataclasses.replace(LOWER, variants=("none",)),)}, "zero under few@1"),
        ({"predictions": (dataclasses.replace(LOWER, protocol="few@2"),)}, "zero under few@2"),
        ({"probes": (GRID, GRID)}, "limits@1 twice"),
        ({"probes": (at_zero(dataclasses.replace(BASE, slots=2), "none"),)}, "few@1 twice"),
        ({"probes": (ScheduledMeasurement(WIDTHS, dataclasses.replace(BASE, name="seen", seed=0)),)}, "0"),
        ({"probes": (at_zero(BASE, "amnesia"),)}, "amnesia"),
    ],
)
def test_what_no_run_could_decide_is_refused_before_it(study, changes, got):
    with pytest.raises(MuvlaError) as info:
        dataclasses.replace(study, **changes).check()
    assert str(info.value.got) == got


def test_a_narrowed_study_keeps_the_predictions_of_what_is_left(study):
    both = dataclasses.replace(study, predictions=(dataclasses.replace(LOWER, variants=("dummy", "K=8")), LOWER))
    assert [one.variants for one in both.narrowed(variants=("dummy",)).predictions] == [("dummy",)]


@pytest.mark.parametrize(
    ("make", "field", "got"),
    [
        (lambda: Grid("limits", 1, (), x="limit"), "probe limits@1", ""),
        (
            lambda: Grid("limits", 1, GRID.points, x="N"),
            "probe limits@1, point {'limit': 15, 'memory': 'active'}",
            "'N'",
        ),
        *(
            (
                lambda name=name: Grid("limits", 1, (Point(BASE, "zero", ((name, 1),)),), x=name),
                f"probe limits@1, point {{'{name}': 1}}",
                f"'{name}'",
            )
            for name in ("H", "held", "variant", "difference", "difference_n", "own_rate")
        ),
        (lambda: Grid("Limits of it", 1, GRID.points, x="limit"), "probe.name", "Limits of it"),
        (lambda: Grid("limits", 0, GRID.points, x="limit"), "probe.version", "0"),
        (lambda: ScheduledMeasurement(WIDTHS, BASE, 7), "probe widths@1: episodes", "7"),
        (lambda: get_probe("telepathy", BASE), "probe", "telepathy"),
    ],
)
def test_bad_probes_are_refused(make, field, got):
    with refused(field) as info:
        make()
    assert got in str(info.value.got)


def test_a_probe_on_the_command_line_is_a_grid_or_a_measurement_by_name():
    assert isinstance(get_probe("phase-length", get_protocol("recall-position3-rh@1")), Grid)
    assert all(isinstance(get_probe(name, BASE), Measurement) for name in MEASUREMENTS)


STUDY = """
import dataclasses
from muvla.config import *
from muvla.config.sizes import get_size
from sweeps.predictions import Prediction
from sweeps.study import Study
from helpers.probe_study import *
from muvla.probes.base import ScheduledMeasurement
base = Cell(
    model=ModelConfig(size=get_size("tiny"), chunk=1, reserve=4),
    data=DataConfig(DatasetConfig(task=TaskConfig("RecallPosition3-v0"), episodes=24)),
    memory=MemoryConfig("tokens", 4), truncation=8, budget=BudgetConfig(slots=4, window=8, updates=2),
)
study = Study("probed", "a study with probes", base, {"none": no_memory(), "K=8": tbptt(8, 4)},
              ("memory.kind", "memory.m", "truncation"), (0,), (BASE,), ("zero", "freeze_first"),
              (GRID, MAP, ScheduledMeasurement(WIDTHS, BASE, 2)), (LOWER,))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A study with probes, swept once."""
    root = tmp_path_factory.mktemp("probed")
    (root / "study.py").write_text(STUDY)
    result = run_study(
        load_study(root), Ledger(root / "runs", root / "data"), SweepOptions(processes=1, track=False), lambda _: None
    )
    assert [entry.state for entry in result.entries] == ["done", "done"], [e.run.failure for e in result.entries]
    return root, result.entries[1]


def at(root):
    return ["--runs", str(root / "runs"), "--data", str(root / "data")]


@pytest.mark.slow
def test_a_sweep_runs_probes_and_keeps_their_origin(place):
    _, entry = place
    folder = entry.run.folder / "probes"
    assert list(pd.read_csv(folder / "widths@1-few@1.csv")["value"]) == [4, 4]
    assert (folder / "widths@1" / "note.txt").exists()
    meta = read_json(folder / "widths@1-few@1.json")
    assert (meta["protocol_hash"], meta["seeds"]) == (BASE.hash, [BASE.seed, BASE.seed + 1])
    assert (entry.run.folder / "provenance" / f"{meta['provenance']}.json").exists()
    records = entry.records()
    assert meta["provenance"] in records.provenance and [one.id for one in records.measurements] == ["widths@1"]
    assert set(records.rows) == {("few@1", i) for i in ("none", "zero", "freeze_first")}
    share = dataclasses.replace(entry.study.measurements[0], measurement=dataclasses.replace(WIDTHS, share=True))
    of_share = dataclasses.replace(entry, study=dataclasses.replace(entry.study, probes=(share,)))
    assert [one.share for one in (*records.measurements, *of_share.records().measurements)] == [False, True]
    assert [len(p.rows) for grid in records.grids for p in grid.points] == [6] * 8


@pytest.mark.slow
def test_a_measurement_is_taken_once_and_of_another_protocol_refused(place):
    _, entry = place
    one = entry.study.measurements[0]
    file = frame_file(entry.run, one)
    before = file.stat().st_mtime_ns
    assert take_measurement(Evaluator(entry.run), one) == file and file.stat().st_mtime_ns == before
    more = dataclasses.replace(one, episodes=3)
    assert measurement_meta(entry.run, more) is None, "of other episodes it is not taken"
    take_measurement(Evaluator(entry.run), more)
    assert entry.missing_measurements == [one] and measurement_meta(entry.run, more)["seeds"] == list(more.seeds)
    take_measurement(Evaluator(entry.run), one)
    assert entry.state == "done"
    meta = read_json(file.with_suffix(".json"))
    write_json(file.with_suffix(".json"), meta | {"protocol_hash": "other"})
    try:
        with pytest.raises(MuvlaError) as info:
            entry.missing_measurements  # noqa: B018
        assert info.value.field.endswith("protocol_hash") and info.value.got == "other"
    finally:
        write_json(file.with_suffix(".json"), meta)


@pytest.mark.slow
def test_a_measurement_that_was_cut_short_is_taken_again(place):
    _, entry = place
    one = entry.study.measurements[0]
    frame_file(entry.run, one).with_suffix(".json").unlink()
    assert entry.state == "partial" and entry.missing_measurements == [one]
    take_measurement(Evaluator(entry.run), one)
    assert entry.state == "done"


@pytest.mark.slow
def test_measurements_refuse_what_they_cannot_read(place):
    root, entry = place
    other = Ledger(root / "runs", root / "data").entries(
        entry.study, Ledger(root / "runs", root / "data").stores(entry.study)
    )[0]
    with refused("probe widths@1"):
        take_measurement(Evaluator(other.run), ScheduledMeasurement(WIDTHS, BASE, 2))
    wrong = dataclasses.replace(WIDTHS, name="wrong", y="missing")
    with refused("probe wrong@1: frame") as info:
        take_measurement(Evaluator(entry.run), ScheduledMeasurement(wrong, BASE, 2))
    assert "'missing'" in info.value.got
    seen = dataclasses.replace(BASE, name="seen", seed=entry.run.store().parts[0].seeds.start)
    with refused("probe widths@1: episodes"):
        take_measurement(Evaluator(entry.run), ScheduledMeasurement(WIDTHS, seen, 2))


@pytest.mark.slow
def test_the_report_draws_every_probe(place, capsys):
    root, _ = place
    assert main(["report", str(root), *at(root), "--out", str(root / "out")]) == 0
    names = {path.name for path in (root / "out").iterdir()}
    drawn = ("paired", "probe-limits", "probe-map-k-8", "probe-widths-few")
    assert {f"{name}.{suffix}" for name in drawn for suffix in ("png", "pdf")} <= names
    assert {"paired.csv", "verdicts.csv", "verdicts.md", "probe-limits.csv", "probe-map.csv"} <= names
    text = (root / "out" / "report.md").read_text()
    assert "zero does nothing" in text and "probe-map-k-8.png" in text and "Probe `limits@1`" in text


@pytest.mark.slow
def test_probe_on_the_command_line(place, capsys):
    root, entry = place
    command = [
        "probe",
        entry.run.train,
        "gradients",
        "--protocol",
        "recall-position3-rh@1",
        "--episodes",
        "2",
        *at(root),
    ]
    assert main(command) == 0
    file = entry.run.folder / "probes" / "gradients@1-recall-position3-rh@1.csv"
    assert str(file) in capsys.readouterr().out and file.exists()
    for changes, field in ((["telepathy"], "probe"), (["phase-length"], "--episodes")):
        assert main([*command[:2], *changes, *command[3:]]) == EXIT_BAD_INPUT
        assert printed_field(capsys) == field


@pytest.mark.slow
def test_a_report_from_committed_rows_equals_the_report_from_the_runs_folder(place, undrawn, capsys):
    root, entry = place
    assert main(["report", str(root), *at(root), "--episodes", "0", "--out", str(root / "results")]) == 0
    elsewhere = ["--runs", str(root / "no-runs"), "--data", str(root / "no-data")]
    assert main(["report", str(root), "--committed", *elsewhere, "--out", str(root / "again")]) == 0
    written, again = (
        {path.name: path.read_bytes() for path in (root / name).iterdir()} for name in ("results", "again")
    )
    assert written.pop("index.html") != again.pop("index.html"), "each page names its command"
    assert written.pop("filmstrip.json"), "drawn by the environment, for the page"
    assert written.pop("rows.jsonl.gz") and written.keys() == again.keys() and "probe-widths-few.csv" in again
    pages = [texts.pop("report.md").decode().splitlines() for texts in (written, again)]
    assert written == again
    assert [line for line in pages[0] if "Command:" not in line] == [
        line for line in pages[1] if "Command:" not in line
    ]
    kept = load_results(root).records[1]
    assert kept == entry.records()
