"""Trackers by name. A tracker is one file and one line here, or an entry point of another package."""

from __future__ import annotations

from muvla.errors import MuvlaError
from muvla.utils.registry import Registry
from sweeps.tracking.base import Tracker

TRACKERS = Registry(
    "muvla.trackers",
    {"mlflow": "sweeps.tracking.mlflow:MlflowTracker", "jsonl": "sweeps.tracking.jsonl:JsonLinesTracker"},
    "--tracker",
)


def get_tracker(name: str) -> type[Tracker]:
    """The tracker's class. Raises MuvlaError for an unknown name, and for a member that is no tracker."""
    tracker = TRACKERS.load(name)
    if not (isinstance(tracker, type) and issubclass(tracker, Tracker)):
        raise MuvlaError(
            f"--tracker {name}",
            got=TRACKERS.places()[name],
            expected="a subclass of sweeps.tracking.base.Tracker",
            remedy="derive the class from Tracker, or fix the entry point of the package that registers it",
        )
    return tracker
