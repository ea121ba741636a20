"""The frame of the training logs: a line per cell, logged update and kind of demonstrations."""

from __future__ import annotations

import pandas as pd

from analysis.intervention_frames import labelled
from muvla.evaluation.records import CellRecords

FIRST_DECISION = {
    "loss_at_first_decision": "training",
    "loss_at_first_decision_held_out": "held-out demonstrations",
}


def training_frame(cells: list[CellRecords]) -> pd.DataFrame:
    """The error of the next action at the first step of the decision, in training and on held-out demonstrations.

    Columns: order, variant, seed, update, demonstrations (a value of FIRST_DECISION), error. The error has the unit of
    the loss: normalised actions, mean absolute for the head `l1`. Empty where no log has the quantity.
    """
    lines = [
        {"order": order, "variant": variant, "seed": cell.cell.seed, "update": update}
        | {"demonstrations": demonstrations, "error": error}
        for order, (variant, cell) in enumerate(labelled(cells))
        for column, demonstrations in FIRST_DECISION.items()
        for update, error in zip(cell.curve.get("update", ()), cell.curve.get(column, ()), strict=False)
        if error is not None
    ]
    return pd.DataFrame(lines)
