"""Notebooks run on the rows of small sweeps."""

import dataclasses
import re
from types import SimpleNamespace

import IPython.display
import jupytext
import matplotlib.figure
import pytest
from nbclient import NotebookClient

from helpers.paths import ROOT
from helpers.rows import records
from helpers.studies import STUDY
from muvla.config import tbptt
from muvla.evaluation.records import GridPoint, GridRows
from sweeps import ledger, loader
from sweeps.ledger import Ledger
from sweeps.loader import load_study
from sweeps.sweep import SweepOptions, run_study

# Additions to the small study of test_sweep: an intervention with its sham, two grids and a measurement.
PROBED = """
import dataclasses
from sweeps.predictions import Prediction
from muvla.probes.base import ScheduledMeasurement
from muvla.probes.registry import get_grid, get_measurement

few = study.protocols[0]
# Fixed phase lengths, so that every episode has donors.
BASE = dataclasses.replace(few, name="held", task=dataclasses.replace(few.task, cue=(2, 2), delay=(2, 2)))
study = dataclasses.replace(
    study, protocols=(BASE,), interventions=("zero", "transplant", "transplant_same"),
    probes=(get_grid("chunk-length")(BASE, hs=(1, 2), memories=("none", "zero")),
            get_grid("time-map")(BASE, kinds=("zero",), steps=(0, 1), blocks=(None, (0, 2))),
            ScheduledMeasurement(get_measurement("dynamics"), BASE)),
    predictions=(Prediction("zero does nothing", ("K=8",), "zero", "null"),),
)
"""
FIGURES = {"recall_quick": 2, "recall_causality": 6}  # the second: paired, follow, a grid, a map per variant, dynamics


def executed(name, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = jupytext.read(ROOT / "notebooks" / f"{name}.py")
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    return [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]


def executed_on(name, tmp_path, monkeypatch, study):
    (tmp_path / "study.py").write_text(study)
    ledger = Ledger(tmp_path / "runs", tmp_path / "data")
    assert not run_study(load_study(tmp_path), ledger, SweepOptions(processes=2, track=False), lambda _: None).failed
    monkeypatch.setenv("MUVLA_ROOT", str(tmp_path))
    monkeypatch.setenv("MUVLA_STUDY", str(tmp_path / "study.py"))
    return executed(name, monkeypatch)


def test_every_notebook_is_executed_here():
    assert {path.stem for path in (ROOT / "notebooks").glob("*.py")} == {*FIGURES, "results"}


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_it_runs_and_draws(name, tmp_path, monkeypatch):
    study = STUDY.format(updates=6)
    outputs = executed_on(name, tmp_path, monkeypatch, study if name == "recall_quick" else study + PROBED)
    assert sum("image/png" in o.get("data", {}) for o in outputs) == FIGURES[name]
    assert any("K=8" in o.get("data", {}).get("text/plain", "") for o in outputs)


@pytest.mark.slow
def test_the_committed_results_are_rebuilt_without_a_sweep(monkeypatch):
    """Every figure that RESULTS.md shows, and every study's summary, which the notebook compares with RESULTS.md."""
    monkeypatch.setenv("MUVLA_ROOT", str(ROOT))
    outputs = executed("results", monkeypatch)
    text = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    shown = re.findall(r"^!\[", text, re.MULTILINE)
    assert sum("image/png" in o.get("data", {}) for o in outputs) == len(shown)
    tables = "".join(o.get("data", {}).get("text/markdown", "") for o in outputs)
    assert tables.count("| variant |") == text.count("| variant |") > 0 and "text/html" in outputs[-2]["data"]


def displayed(cells, monkeypatch):
    """Return the objects that the cells of recall_causality display for these records, without a kernel."""
    shown = []
    study = SimpleNamespace(title="s", predictions=())
    entries = [SimpleNamespace(records=lambda cell=cell: cell) for cell in cells]
    held = SimpleNamespace(entries=lambda *_: entries, opened=lambda _: None)
    monkeypatch.setattr(loader, "load_study", lambda _: study)
    monkeypatch.setattr(ledger, "Ledger", lambda *_: held)
    monkeypatch.setattr(IPython.display, "display", shown.append)
    source = (ROOT / "notebooks" / "recall_causality.py").read_text()  # its magic is a comment
    exec(compile(source, "recall_causality", "exec"), {})
    return shown


def test_it_shows_what_there_is_of_a_study_that_has_begun(base, monkeypatch):
    """A study with plain results alone, then with an intervention that never fired, then with a map.

    The map has a column per training seed of the study.
    """
    cells = [
        records(base, variant, tbptt(8, 4), seed, 18, 1, 1, kinds=("none",))
        for variant, seed in (("K=8", 0), ("K=8", 1), ("K=1", 0))
    ]
    assert displayed(cells, monkeypatch) == []
    late = dataclasses.replace(cells[0], never_fired=(("p@1", "zero"),))
    table, figure = displayed([late], monkeypatch)
    assert table["K=8"].tolist() == ["never fired"]
    assert "first-touch accuracy" in " ".join(figure.get_suptitle().split())
    point = GridPoint({"step": 0, "tokens": "all"}, "p@1", "none", 1 / 3, cells[0].rows["p@1", "none"])
    mapped = GridRows("map@1", "step", "tokens", None, "", (point,))
    figures = displayed([dataclasses.replace(cell, grids=(mapped,)) for cell in cells], monkeypatch)
    assert all(isinstance(figure, matplotlib.figure.Figure) for figure in figures)
    assert [len([axes for axes in each.axes if axes.images]) for each in figures] == [3, 3]
