"""The README: its code runs as pasted, its counts come from the committed results, and it stays short."""

import os
import re
import subprocess
import sys

import pandas as pd
import pytest

from helpers.paths import ROOT
from sweeps.loader import load_study

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
LINES = 130


def test_the_readme_is_short_and_its_links_lead_somewhere():
    assert len(TEXT.splitlines()) <= LINES
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("http") or (ROOT / target).exists(), target


@pytest.mark.slow
def test_the_lines_of_python_run_as_pasted(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CODE[0]]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert [line.split()[0] for line in run.stdout.splitlines()] == ["None", "zero", "transplant"]


def test_the_study_is_complete(tmp_path):
    (tmp_path / "study.py").write_text(CODE[1])
    study = load_study(tmp_path)
    study.check()
    assert study.name == "guards" and len(study.cells()) == 9


def test_the_findings_are_those_of_the_committed_results():
    cells = pd.read_csv(ROOT / "experiments" / "recall_quick" / "results" / "cells.csv")
    cells = cells[(cells["U"] == 400) & (cells["intervention"] == "none")]
    bound = cells[["chance", "best_constant"]].max(axis=1)
    above = cells[cells["choice_low"] > bound].groupby("variant")["seed"].nunique()
    counts = {name: int(above.get(name, 0)) for name in cells["variant"].unique()}
    expected = {"K=8": 5, "K=2": 1, "K=1": 0, "EMA 0.1": 1, "recorded, K=2": 5, "recorded, K=1": 5, "H=4, K=2": 5}
    assert {name: counts[name] for name in expected} == expected
    for name, count in (("K=2", 1), ("K=1", 0), ("EMA 0.1", 1)):
        assert re.search(rf"`{re.escape(name)}`\)?,?( it did so)?\s+(it did\s+so\s+)?in {count} of 5", TEXT), name
    assert TEXT.count("5 of 5 seeds") == 3


def test_the_output_of_the_demo_is_that_of_the_committed_results():
    cells = pd.read_csv(ROOT / "experiments" / "recall_quick" / "results" / "cells.csv")
    cells = cells[(cells["U"] == 400) & (cells["intervention"] == "none") & (cells["seed"] == 0)]
    printed = re.findall(r"^    (\S+) +0 +(\d+) +(\S+) \[.*?\] +(\S+) \[.*?\] +(\S+) \[", TEXT, re.MULTILINE)
    assert len(printed) >= 4
    for variant, n, touch, choice, success in printed:
        line = cells[cells["variant"] == variant].iloc[0]
        rates = [f"{line[column]:.2f}" for column in ("touch_rate", "choice_rate", "success_rate")]
        assert [n, touch, choice, success] == [str(line["measured"]), *rates]
