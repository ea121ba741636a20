"""The positive control of the rung position3: its observable twin, without memory."""

from __future__ import annotations

from experiments.memory_ladder.ladder import POSITION, make_twin

study = make_twin("position3", POSITION, 10)
