"""The rung of two discs in order."""

from __future__ import annotations

from experiments.memory_ladder.ladder import SEQUENCE, make_study

study = make_study("sequence3", SEQUENCE, 23)
