"""The positive control of the rung sequence3: its observable twin, without memory."""

from __future__ import annotations

from experiments.memory_ladder.ladder import SEQUENCE, make_twin

study = make_twin("sequence3", SEQUENCE, 23)
