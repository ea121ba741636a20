# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Every table and figure of RESULTS.md
#
# This notebook rebuilds the tables and figures of RESULTS.md from the committed CSV files in `experiments/*/results`.
# It needs no sweep and no run folder. Open this file with Jupyter and jupytext, or run it as a script.

# %%
# %matplotlib inline
import os
import re
from pathlib import Path

from IPython.display import Markdown, display

from analysis.figures.base import subjects_of
from analysis.figures.registry import figures_of
from analysis.frames import read_cells
from analysis.published import averages, beside, disagreements
from analysis.report.committed import subjects
from analysis.report.published import published_table
from analysis.report.summary import Results, summary_block
from sweeps.loader import load_study

root = Path(os.environ.get("MUVLA_ROOT", Path.cwd() if Path("experiments").exists() else Path.cwd().parent))
results_md = (root / "RESULTS.md").read_text(encoding="utf-8")
STUDIES = {  # folder of results → file of the study
    "recall_quick/results": "recall_quick/study.py",
    "recall_budget/results": "recall_budget/study.py",
    "recall_width/results": "recall_width/study.py",
    "recall_causality/results": "recall_causality/study.py",
    "mikasa_quick/results": "mikasa_quick/study.py",
    "recall_causality/results-mikasa": "recall_causality/mikasa.py",
}

# %% [markdown]
# ## Summaries and tables
# Each summary is built anew and compared with the summary that RESULTS.md holds.

# %%
for place, file in STUDIES.items():
    study, folder = load_study(root / "experiments" / file), root / "experiments" / place
    block = summary_block(Results.read(folder), study.name, study.title, root)
    committed = re.search(rf"<!-- generated: {study.name} -->\n(.*?)<!-- end", results_md, re.DOTALL)[1]
    assert block.strip() == committed.strip(), f"RESULTS.md is not current for {study.name}; run `make results`"
    display(Markdown(re.sub(r"^!\[.*$|^More: .*$", "", block, flags=re.MULTILINE)))

# %% [markdown]
# ## Figures
# Each figure that RESULTS.md shows is drawn from the CSV files of its study.

# %%
for place, file in STUDIES.items():
    study, folder = load_study(root / "experiments" / file), root / "experiments" / place
    shown = set(re.findall(rf"\(experiments/{place}/([\w.-]+)\.png\)", results_md))
    for name, subject in subjects(study, folder):
        for figure in figures_of(name).values():
            for each in subjects_of(figure, subject):
                if figure.applies(each) and figure.stem(each) in shown:
                    display(figure.draw(each))

# %% [markdown]
# ## Published numbers on the same tasks
# This project did not measure the published numbers.

# %%
for place, file in STUDIES.items():
    study = load_study(root / "experiments" / file)
    joined = beside(read_cells(root / "experiments" / place / "cells.csv"), study.protocols)
    for table, lines in joined.groupby("table", sort=False) if len(joined) else ():
        print(f"{study.name}, {table}")
        display(published_table(lines))

# %%
display(averages())
print("\n".join(disagreements()))
