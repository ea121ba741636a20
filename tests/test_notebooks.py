"""Notebooks are executed, on the rows of a small sweep."""

from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient
from test_sweep import STUDY

from sweeps.grid import load_study
from sweeps.ledger import Ledger
from sweeps.run import SweepOptions, run_study

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_runs_and_draws(path, tmp_path, monkeypatch):
    (tmp_path / "study.py").write_text(STUDY.format(updates=6))
    ledger = Ledger(tmp_path / "runs", tmp_path / "data")
    run_study(load_study(tmp_path), ledger, SweepOptions(processes=2, track=False), lambda _: None)
    monkeypatch.setenv("MUVLA_ROOT", str(tmp_path))
    monkeypatch.setenv("MUVLA_STUDY", str(tmp_path / "study.py"))
    monkeypatch.setenv("PYTHONPATH", str(path.parents[1]))
    notebook = jupytext.read(path)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 2
    assert any("K=8" in o.get("data", {}).get("text/plain", "") for o in outputs)
