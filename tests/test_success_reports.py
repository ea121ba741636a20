"""Reports of tasks in which nothing is chosen and the metric is success, and the means over sets of protocols."""

import dataclasses
from types import SimpleNamespace

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from analysis import tables
from analysis.frames import tidy
from helpers.figures import draw, legend_of
from helpers.rows import over, records, write
from muvla.config import no_memory, tbptt
from muvla.evaluation.catalog import declared_sets, get_protocol
from muvla.evaluation.records import CellRecords
from muvla.runs.run import Run
from sweeps.ledger import Entry
from sweeps.study import Study
from sweeps.sweep import finished_line


def without_choice(cell: CellRecords, changed: dict[str, int]) -> CellRecords:
    """The same successes where nothing is chosen; `changed` has others by intervention."""
    rows = {}
    for (name, kind), those in cell.rows.items():
        bare = [dataclasses.replace(r, target=None, choice=None if r.error else -1) for r in those]
        if kind in changed:
            bare = [
                r if r.error else dataclasses.replace(r, success_once=i < changed[kind]) for i, r in enumerate(bare)
            ]
        rows[name, kind] = bare
    return dataclasses.replace(cell, rows=rows, chance={"p@1": None})


@pytest.fixture
def cells(base):
    """Success 6/20 of no memory, 18/20 and under `zero` 5/20 of K=8."""
    return [
        without_choice(records(base, "none", no_memory(), 0, 6, 14, 0), {}),
        without_choice(records(base, "K=8", tbptt(8, 4), 0, 18, 2, 0), {"zero": 5}),
    ]


def test_where_nothing_is_chosen_tables_figures_and_captions_are_of_success(cells, tmp_path):
    _, said = write(cells, tmp_path)
    out = tmp_path / "out"
    names = {path.name for path in out.iterdir()}
    assert {"success.png", "success.pdf", "interventions.png"} <= names and "choice.png" not in names
    assert "Success, under interventions on the memory" in said and "0.25 [0.11, 0.47]" in said
    table = (out / "interventions.md").read_text()
    assert "0.90 [0.70, 0.97]" in table and "0.25 [0.11, 0.47]" in table
    text = (out / "report.md").read_text()
    assert "| none | 0.90 |" in text and "| `zero` | 0.25 |" in text and "](success.png)" in text
    by_seed = (out / "by-seed.md").read_text()
    assert "Success under `zero`:" in by_seed and "0.25 [0.11, 0.47] 5/20" in by_seed
    everything = said + text + "".join((out / name).read_text() for name in names if name.endswith(".md"))
    assert "touch" not in everything.replace("untouched", "")


def test_figures_of_success_have_no_false_legend(cells):
    frame = tidy(cells)
    figure = draw("rates", frame)
    FigureCanvasAgg(figure).draw()
    marks = [line for axes in figure.axes for line in axes.lines]
    assert marks and all(mark.get_marker() == "o" for mark in marks), "no cross, no line of a bound that is none"
    assert figure.axes[0].get_ylabel().endswith("success")
    assert legend_of(figure) == ["training seed 0"]
    for each in (figure, draw("interventions", frame)):
        assert "touch" not in each.get_suptitle()


def test_a_cross_says_why_there_is_no_rate(base, cells):
    lost = records(base, "none", no_memory(), 1, 0, 0, 0, errors=20)
    chosen = [records(base, "K=8", tbptt(8, 4), 0, 18, 2, 0)]
    for those, said in ((cells, "every episode ended in an error"), (chosen, "nothing touched in any episode")):
        figure = draw("rates", tidy([*those, lost]))
        assert legend_of(figure)[-1] == said


# --- sets -------------------------------------------------------------------------------------------------------------


def test_the_mean_over_a_set_is_unweighted_by_variant_and_seed(base, tmp_path):
    cells = [
        over(base, "none", no_memory(), 0, {"a@1": 1, "b@1": 4}),
        over(base, "K=8", tbptt(8, 4), 0, {"a@1": 5, "b@1": 9}, ("none", "zero")),
        over(base, "K=8", tbptt(8, 4), 1, {"a@1": 7, "b@1": None}),
        over(base, "K=8", tbptt(8, 4), 2, {"a@1": 7, "b@1": -1}),
    ]
    _, said = write(cells, tmp_path)
    table = (tmp_path / "out" / "sets.md").read_text()
    rows = [[entry.strip() for entry in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert {tuple(row[1:3]): row[3:] for row in rows} == {
        ("none", "0"): ["0.25 over 2", "not run"],
        # 5 of 10, and 9 of the 9 that were measured: an error is in no rate, and counted beside it
        ("K=8", "0"): ["0.75 over 2 (+1 errors)"] * 2,
        ("K=8", "1"): ["– without b@1 (not run)", "not run"],
        ("K=8", "2"): ["– without b@1 (only errors) (+10 errors)", "not run"],
        ("random", "–"): ["not run", "–"],
        ("expert", "–"): ["not run", "–"],
    }
    assert table in (tmp_path / "out" / "report.md").read_text() and "unweighted mean" in said


def test_each_protocol_that_a_mean_lacks_says_why(base):
    def means(a, b, never=()):
        cell = over(base, "K=8", tbptt(8, 4), 0, {"a@1": a, "b@1": b}, ("zero",))
        plain = over(base, "K=8", tbptt(8, 4), 0, {"a@1": 1, "b@1": 1})
        silent = tuple((name, "zero") for name in never)
        cell = dataclasses.replace(cell, rows=plain.rows | cell.rows, never_fired=silent)
        return tables.set_table(tidy([cell]), cell.sets).iloc[0].get("zero")

    assert means(5, None, never=("b@1",)) == "– without b@1 (never fired)"
    assert means(None, None, never=("a@1",)) == "– without a@1 (never fired), b@1 (not run)"
    assert means(None, -1, never=("a@1",)) == "– without a@1 (never fired), b@1 (only errors) (+10 errors)"
    assert means(None, None, never=("a@1", "b@1")) == "never fired"
    assert means(-1, -1) == "– (+20 errors)" and means(5, None) == "– without b@1 (not run)"


def test_a_study_without_a_whole_set_has_no_means(cells, tmp_path):
    write(cells, tmp_path)
    assert not (tmp_path / "out" / "sets.md").exists()
    assert tables.set_table(tidy(cells), {}).empty


def test_the_ledger_names_the_sets_that_a_study_evaluates(base, tmp_path):
    def sets(*protocols):
        study = Study("s", "s", base, {"none": no_memory()}, ("memory.kind", "memory.m", "truncation"), (0,), protocols)
        return Entry(study, study.cells()[0], Run(tmp_path, tmp_path, "t")).records().sets

    assert sets(get_protocol("recall-position3-rh@1")) == {}
    trained = declared_sets()["mikasa5-rh@1"]
    assert sets(get_protocol("recall-position3-rh@1"), *trained) == {"mikasa5-rh@1": tuple(one.id for one in trained)}
    assert sets(*trained[:4]) == {}


def test_the_line_of_a_finished_cell_names_the_studys_own_interventions_alone():
    """Not what a grid among its probes asks for under the same protocol, which the report draws."""
    study = SimpleNamespace(
        protocols=(SimpleNamespace(id="p@1"),),
        interventions=("zero", "drop"),
        interventions_of=lambda cell: ("zero", "drop"),
    )
    entry = SimpleNamespace(
        study=study,
        item=SimpleNamespace(label="K=8", cell=None),
        state="done",
        summaries=dict,
        never_fired=(("p@1", "zero"), ("p@1", "zero[0:2]@1"), ("p+h2@1", "drop")),
    )
    assert finished_line(entry, 1, 1, 0.0).split("s  ")[1].split() == ["K=8", "zero", "never", "fired"]
