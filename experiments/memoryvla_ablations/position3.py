"""The ablations on one marked disc, five steps before the decision."""

from __future__ import annotations

from experiments.memoryvla_ablations.ablations import make_study

study = make_study("position3", delay=5)
