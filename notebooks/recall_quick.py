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
# # Which variants remember the marked disc?
#
# This notebook loads the episode rows of `experiments/recall_quick` from the run folders and draws the report's
# figures. Run the sweep first (`make demo`). Open this file with Jupyter and jupytext, or run it as a script.
# `muvla diff recall_quick A B` prints the difference between two variants in the terminal.

# %%
# %matplotlib inline
import os
from pathlib import Path

from analysis.figures.base import Subject
from analysis.figures.registry import get_figure
from analysis.frames import tidy
from analysis.tables import by_seed, intervention_table, main_table
from sweeps.difference import difference
from sweeps.ledger import Ledger
from sweeps.loader import load_study

root = Path(os.environ.get("MUVLA_ROOT", Path.cwd() if Path("runs").exists() else Path.cwd().parent))
study = load_study(Path(os.environ.get("MUVLA_STUDY", root / "experiments" / "recall_quick")))
ledger = Ledger(root / "runs", root / "data")
entries = ledger.entries(study, ledger.opened(study))

# %% [markdown]
# ## The difference between two cells
# The difference is the exact list of fields in which two configurations differ. The list leaves out fields that the
# computation does not use.

# %%
cells = {entry.item.variant: entry.item.cell for entry in entries}
first, *others = cells
for variant in others:
    print(f"{first} → {variant}: {difference(cells[first], cells[variant])}")

# %% [markdown]
# ## Rates
# The first table has a row per variant and training seed, the second a column per training seed. Episodes are never
# pooled over training seeds.

# %%
frame = tidy([entry.records() for entry in entries])
main_table(frame)

# %%
by_seed(frame, "choice", "none")

# %% [markdown]
# ## First-touch accuracy given a touch
# The dashed line is chance. A policy without memory that queries at every step cannot exceed this line.

# %%
get_figure("rates").draw(Subject(frame, study.title))

# %% [markdown]
# ## Interventions on the memory
# The table and the figure show the same episodes of each trained policy with and without each intervention.

# %%
intervention_table(frame)

# %%
get_figure("interventions").draw(Subject(frame, study.title))
