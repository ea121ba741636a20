"""The positive control of the rung position3_delay5: its observable twin, without memory."""

from __future__ import annotations

from experiments.memory_ladder.ladder import POSITION, make_twin, with_delay

study = make_twin("position3_delay5", with_delay(POSITION, "recall-position3-delay5-rh", 5), 10)
