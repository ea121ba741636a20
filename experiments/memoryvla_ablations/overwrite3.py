"""The ablations on a mark that a later mark may replace."""

from __future__ import annotations

from experiments.memoryvla_ablations.ablations import make_study

study = make_study("overwrite3", "recall-overwrite3-rh@1")
