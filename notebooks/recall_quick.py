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
# Loads the episode rows of `experiments/recall_quick` from the run folders and draws the report's figures from them.
# Run the sweep first (`make demo`). Open this file with Jupyter and jupytext, or run it as a script.

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
# The difference is the exact list of fields in which two configurations differ. Fields that a computation does not use
# are left out.

# %%
cells = {entry.item.variant: entry.item.cell for entry in entries}
first, *others = cells
for variant in others:
    print(f"{first} → {variant}: {difference(cells[first], cells[variant])}")

# %% [markdown]
# ## Rates
# One line per training seed; episodes are never pooled over seeds.

# %%
frame = tidy([entry.records() for entry in entries])
main_table(frame)

# %%
by_seed(frame, "choice", "none")

# %% [markdown]
# ## First-touch accuracy given a touch
# A policy without memory that queries at every step cannot do better than the dashed line.

# %%
get_figure("rates").draw(Subject(frame, study.title))

# %% [markdown]
# ## Under interventions on the memory

# %%
intervention_table(frame)

# %%
get_figure("interventions").draw(Subject(frame, study.title))
