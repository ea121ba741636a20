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
# # What a memory does, and what would do as well
#
# Loads the episode rows of `experiments/recall_causality` from the run folders: paired differences of interventions
# beside their shams, whose target a transplanted memory makes the policy choose, and the probes. The words are defined
# in `docs/causality.md`. Run `muvla sweep experiments/recall_causality` first.

# %%
# %matplotlib inline
import os
from pathlib import Path

import pandas as pd
from IPython.display import display

from analysis import causal
from analysis.by_seed import quantities_of
from analysis.figures.grids import curves_figure, heatmap_figure
from analysis.figures.interventions import follow_figure, paired_figure, variants_of
from analysis.figures.measurements import reading_figure
from sweeps.ledger import Ledger
from sweeps.loader import load_study

root = Path(os.environ.get("MUVLA_ROOT", Path.cwd() if Path("runs").exists() else Path.cwd().parent))
study = load_study(Path(os.environ.get("MUVLA_STUDY", root / "experiments" / "recall_causality")))
ledger = Ledger(root / "runs", root / "data")
cells = [entry.records() for entry in ledger.entries(study, ledger.opened(study))]
variants = list(dict.fromkeys(variant for variant, _ in causal.labelled(cells)))

# %% [markdown]
# ## Predictions, written before the run
# "No ground" is a training seed whose plain run is not what the prediction speaks of.

# %%
verdicts = causal.verdicts(cells, study.predictions)
if not verdicts.empty:
    display(pd.crosstab([verdicts[name] for name in ("prediction", "text", "variant")], verdicts["verdict"]))

# %% [markdown]
# ## Paired differences
# The same episodes of one trained policy with and without the intervention; never pooled over training seeds.

# %%
paired = causal.causal(cells)
by_protocol = list(paired.groupby("protocol", sort=False)) if len(paired) else []  # none before the first result
for protocol, lines in by_protocol:
    quantity, *_ = quantities_of(lines)
    display(causal.short_difference_table(lines, quantity))
    display(paired_figure(lines, quantity, f"{study.title}, {protocol}"))

# %% [markdown]
# ## Whose target is chosen
# Of interventions that bring in another episode's memory; hollow marks are the same episodes without it.

# %%
for protocol, lines in by_protocol:
    if (figure := follow_figure(lines, f"{study.title}, {protocol}")) is not None:
        display(figure)

# %% [markdown]
# ## Probes that are episodes

# %%
for id, grid in causal.grids(cells).items():
    frame = causal.grid_frame(cells, id)
    if frame.empty:
        print(f"{id}: not run")
    elif grid.y is None:
        display(curves_figure(frame, grid, variants, id))
    else:
        for variant in variants_of(frame):
            display(heatmap_figure(frame, variant, grid, f"{id}, {variant}"))

# %% [markdown]
# ## Probes that read the memory
# `value` of a decoder must lie above its dashed bound and above the same probe of shuffled labels; an untrained
# recurrence carries the cue too, so decoding alone shows neither learning nor use.

# %%
taken = {(one.id, one.protocol): one for cell in cells for one in cell.readings}
for key, frame in causal.readings(cells).items():
    display(reading_figure(frame, taken[key], variants, f"{key[0]}, {key[1]}"))
