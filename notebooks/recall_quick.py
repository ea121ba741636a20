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
# # Who remembers which disc was marked?
#
# Loads the episode rows of `experiments/recall_quick` from the run folders and draws the report's figures from them.
# Run the sweep first (`make demo`). Open this file with Jupyter and jupytext, or run it as a script.

# %%
# %matplotlib inline
import os
from pathlib import Path

from analysis.figures.rates import intervention_figure, main_figure
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
# ## What differs between two cells
# The exact difference of two configurations, without the fields that a computation does not use.

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
# ## Choice accuracy given a touch
# A policy without memory that queries at every step cannot do better than the dashed line.

# %%
main_figure(frame, study.title)

# %% [markdown]
# ## Under interventions on the memory

# %%
intervention_table(frame)

# %%
intervention_figure(frame, f"{study.title}: interventions on the memory")
