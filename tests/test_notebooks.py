"""Notebooks are executed, on the rows of small sweeps."""

from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient
from test_sweep import STUDY

from sweeps.grid import load_study
from sweeps.ledger import Ledger
from sweeps.run import SweepOptions, run_study

ROOT = Path(__file__).parents[1]
# What the small study does beyond test_sweep's: an intervention with its sham, a grid of either kind, a reading.
PROBED = """
import dataclasses
from muvla.evaluation.predictions import Prediction
from muvla.probes.base import Read
from muvla.probes.registry import grid, reading

few = study.protocols[0]
# In the same phases, so that every episode has donors.
BASE = dataclasses.replace(few, name="held", task=dataclasses.replace(few.task, cue=(2, 2), delay=(2, 2)))
study = dataclasses.replace(
    study, protocols=(BASE,), interventions=("zero", "transplant", "transplant_same"),
    probes=(grid("chunk-length")(BASE, hs=(1, 2), memories=("none", "zero")),
            grid("time-map")(BASE, kinds=("zero",), steps=(0, 1), blocks=(None, (0, 2))),
            Read(reading("dynamics"), BASE)),
    predictions=(Prediction("zero does nothing", ("K=8",), "zero", "null"),),
)
"""
FIGURES = {"recall_quick": 2, "recall_causality": 6}  # the second: paired, follow, a grid, a map per arm, dynamics


def executed(name, tmp_path, monkeypatch, study):
    (tmp_path / "study.py").write_text(study)
    ledger = Ledger(tmp_path / "runs", tmp_path / "data")
    assert not run_study(load_study(tmp_path), ledger, SweepOptions(processes=2, track=False), lambda _: None).failed
    monkeypatch.setenv("MUVLA_ROOT", str(tmp_path))
    monkeypatch.setenv("MUVLA_STUDY", str(tmp_path / "study.py"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = jupytext.read(ROOT / "notebooks" / f"{name}.py")
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    return [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]


def test_every_notebook_is_executed_here():
    assert {path.stem for path in (ROOT / "notebooks").glob("*.py")} == set(FIGURES)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_it_runs_and_draws(name, tmp_path, monkeypatch):
    study = STUDY.format(updates=6)
    outputs = executed(name, tmp_path, monkeypatch, study if name == "recall_quick" else study + PROBED)
    assert sum("image/png" in o.get("data", {}) for o in outputs) == FIGURES[name]
    assert any("K=8" in o.get("data", {}).get("text/plain", "") for o in outputs)
