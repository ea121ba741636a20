"""The choice of the checkpoint that is evaluated, made from the training loss alone."""

from __future__ import annotations

from typing import Any


class Selection:
    """Chooses the candidate with the lowest mean training loss since the previous candidate.

    The earlier of two equal candidates wins. A clean stop makes no candidate, so the choice does not depend on how
    often a training was interrupted.
    """

    def __init__(self, saved: dict[str, Any] | None):
        """`saved` is the `state` to continue from, or None."""
        saved = saved or {"total": 0.0, "updates": 0, "best": None, "lowest": None}
        self.total, self.updates = saved["total"], saved["updates"]  # since the last candidate
        self.best, self.lowest = saved["best"], saved["lowest"]

    def add(self, loss: float) -> None:
        """Counts the loss of one update."""
        self.total, self.updates = self.total + loss, self.updates + 1

    def candidate(self, update: int) -> None:
        """Makes the checkpoint of `update` a candidate."""
        mean = self.total / self.updates
        if self.lowest is None or mean < self.lowest:
            self.best, self.lowest = update, mean
        self.total, self.updates = 0.0, 0

    def state(self) -> dict[str, Any]:
        """Returns plain data, exact in JSON."""
        return {"total": self.total, "updates": self.updates, "best": self.best, "lowest": self.lowest}
