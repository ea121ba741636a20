"""The positive control of the rung overwrite3: its observable twin, without memory."""

from __future__ import annotations

from experiments.memory_ladder.ladder import OVERWRITE, make_twin

study = make_twin("overwrite3", OVERWRITE, 14)
