"""The rung of one marked disc, at a delay of five steps."""

from __future__ import annotations

from experiments.memory_ladder.ladder import POSITION, make_study, with_delay

study = make_study("position3_delay5", with_delay(POSITION, "recall-position3-delay5-rh", 5), 10)
