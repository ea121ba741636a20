"""Which checkpoint of a training is evaluated, told from the training alone."""

from __future__ import annotations

from typing import Any


class Selection:
    """The candidate with the lowest mean training loss since the one before it; the earlier of two equals. A clean stop
    makes no candidate: what is chosen does not depend on how often a training was interrupted."""

    def __init__(self, saved: dict[str, Any] | None):
        """`saved` is the `state` to continue from."""
        saved = saved or {"total": 0.0, "updates": 0, "best": None, "lowest": None}
        self.total, self.updates = saved["total"], saved["updates"]  # since the last candidate
        self.best, self.lowest = saved["best"], saved["lowest"]

    def add(self, loss: float) -> None:
        self.total, self.updates = self.total + loss, self.updates + 1

    def candidate(self, update: int) -> None:
        mean = self.total / self.updates
        if self.lowest is None or mean < self.lowest:
            self.best, self.lowest = update, mean
        self.total, self.updates = 0.0, 0

    def state(self) -> dict[str, Any]:
        """Plain data, exact in JSON."""
        return {"total": self.total, "updates": self.updates, "best": self.best, "lowest": self.lowest}
