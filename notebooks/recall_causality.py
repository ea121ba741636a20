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
# # Does the policy act on the content of its memory?
#
# This notebook loads the episode rows of `experiments/recall_causality` from the run folders. It shows paired
# differences of interventions beside their shams, donor-following rates and the probes. `docs/causality.md` defines the
# words. Run `muvla sweep experiments/recall_causality` first.

# %%
# %matplotlib inline
import os
from pathlib import Path

from IPython.display import display

from analysis.figures.base import Subject, subjects_of
from analysis.figures.registry import figures_of
from analysis.figures.style import assign_colours
from analysis.intervention_frames import (
    grid_frame,
    grids,
    labelled,
    measurement_frames,
    paired_frame,
    quantities_of,
)
from analysis.intervention_tables import short_difference_table
from analysis.verdicts import verdict_frame
from sweeps.ledger import Ledger
from sweeps.loader import load_study

root = Path(os.environ.get("MUVLA_ROOT", Path.cwd() if Path("runs").exists() else Path.cwd().parent))
study = load_study(Path(os.environ.get("MUVLA_STUDY", root / "experiments" / "recall_causality")))
ledger = Ledger(root / "runs", root / "data")
cells = [entry.records() for entry in ledger.entries(study, ledger.opened(study))]
colours = assign_colours(variant for variant, _ in labelled(cells))


def show(frame_name, lines, probe=None):
    """Display every registered figure that applies to this frame."""
    subject = Subject(lines, study.title, colours, probe=probe)
    for figure in figures_of(frame_name).values():
        for each in subjects_of(figure, subject):
            if figure.applies(each):
                display(figure.draw(each))


# %% [markdown]
# ## Predictions, written before the run
# A training seed has "no ground" if the seed's plain run does not meet the prediction's condition.

# %%
verdicts = verdict_frame(cells, study.predictions)
if not verdicts.empty:
    display(verdicts.drop_duplicates(["prediction", "variant"])[["text", "variant", "together", "evidence"]])

# %% [markdown]
# ## Paired differences and donor-following rates
# Both metrics compare the same episodes of a trained policy with and without the intervention. Episodes are never
# pooled over training seeds. Hollow marks of donor-following rates show the same episodes without the intervention.

# %%
pairs = paired_frame(cells)
for _, lines in pairs.groupby("protocol", sort=False) if len(pairs) else ():  # none before the first result
    display(short_difference_table(lines, quantities_of(lines)[0]))
    show("paired", lines)

# %% [markdown]
# ## Grids: probes that change the task

# %%
for id, grid in grids(cells).items():
    frame = grid_frame(cells, id)
    if frame.empty:
        print(f"{id}: not run")
    else:
        show("grid", frame, grid)

# %% [markdown]
# ## Measurements: probes that read the model's state
# The `value` of a decoder must lie above the dashed bound and above the same decoder on shuffled labels. An untrained
# recurrence also carries the cue, so decoding alone shows neither learning nor use.

# %%
taken = {(each.id, each.protocol): each for cell in cells for each in cell.measurements}
for key, frame in measurement_frames(cells).items():
    show("measurement", frame, taken[key])
