"""The content that one episode gets from others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from muvla.memory.contract import State


@dataclass(frozen=True)
class DonorAssignment:
    """The content that an episode gets.

    `target` is the content that the donor remembers. `DonorBank.assign` turns this content into the place that it has
    in the recipient's scene.
    """

    seed: int | None  # of the donor; None where several episodes give
    target: int | None
    state: Callable[[int], State | None]  # step → the state, or what is added to the state, if any


NOTHING = DonorAssignment(None, None, lambda step: None)
