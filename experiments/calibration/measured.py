"""Rates of the study's own training seeds, from which simulated studies draw."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from analysis.frames import read_cells
from analysis.learned import above_chance

RESULTS = Path(__file__).with_name("results")


@cache
def seed_rates(variant: str, metric: str, intervention: str = "none", unused: bool = False) -> np.ndarray:
    """(training seeds,) rates of one variant under one intervention, in the order of the seeds.

    Args:
        variant: "dummy", "K=1" or "K=2".
        metric: "success", "choice" (first-touch accuracy given a touch) or "touch".
        intervention: name of the intervention.
        unused: take the training seeds that are not above chance, and so do not use their memory.
    """
    cells = read_cells(RESULTS / "cells.csv")
    cells = cells[cells["variant"] == variant]
    plain = cells[cells["intervention"] == "none"]
    seeds = plain["seed"][~above_chance(plain)] if unused else plain["seed"]
    lines = cells[(cells["intervention"] == intervention) & cells["seed"].isin(seeds)]
    return lines.sort_values("seed")[f"{metric}_rate"].to_numpy(float)
