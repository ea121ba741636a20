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


def seeds_above_chance(study, updates):
    """Variant → training seeds whose interval lies above the best score without memory."""
    cells = pd.read_csv(ROOT / "experiments" / study / "results" / "cells.csv")
    cells = cells[(cells["U"] == updates) & (cells["intervention"] == "none")]
    above = cells[cells["choice_low"] > cells[["chance", "best_constant"]].max(axis=1)]
    counts = above.groupby("variant")["seed"].nunique()
    return {name: int(counts.get(name, 0)) for name in cells["variant"].unique()}


def test_the_findings_are_those_of_the_committed_results():
    counts = seeds_above_chance("recall_quick", 400)
    some = {"K=8": 5, "K=2": 1, "K=1": 0, "EMA 0.1": 1}
    all_seeds = ("recorded, K=2", "recorded, K=1", "recorded, EMA 0.1", "H=4, K=2")
    assert {name: counts[name] for name in some} == some and all(counts[name] == 5 for name in all_seeds)
    for name, count in list(some.items())[1:]:
        assert f"`{name}` in {count} of 5" in TEXT, name
    widths = seeds_above_chance("recall_width", 600)
    assert all(widths[f"m={m}, K=8"] == 5 for m in (1, 2, 4, 8, 16))
    assert TEXT.count("5 of 5 seeds") == 4


def test_the_output_of_the_demo_is_that_of_the_committed_results():
    cells = pd.read_csv(ROOT / "experiments" / "recall_quick" / "results" / "cells.csv")
    cells = cells[(cells["U"] == 400) & (cells["intervention"] == "none") & (cells["seed"] == 0)]
    printed = re.findall(r"^    (\S+) +0 +(\d+) +(\S+) \[.*?\] +(\S+) \[.*?\] +(\S+) \[", TEXT, re.MULTILINE)
    assert len(printed) >= 4
    for variant, n, touch, choice, success in printed:
        line = cells[cells["variant"] == variant].iloc[0]
        rates = [f"{line[column]:.2f}" for column in ("touch_rate", "choice_rate", "success_rate")]
        assert [n, touch, choice, success] == [str(line["measured"]), *rates]
