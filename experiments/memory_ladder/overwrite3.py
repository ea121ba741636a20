"""The rung of a mark that a later mark may replace."""

from __future__ import annotations

from experiments.memory_ladder.ladder import OVERWRITE, make_study

study = make_study("overwrite3", OVERWRITE, 14, needs_update=True)
