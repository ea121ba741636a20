"""The rung of one marked disc, at a delay of one or two steps."""

from __future__ import annotations

from experiments.memory_ladder.ladder import POSITION, make_study

study = make_study("position3", POSITION, 10)
