"""The view of a sweep in one tracker: reconciled at the start, live while cells run, final when a cell has ended."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

from sweeps.ledger import Entry
from sweeps.study import Study
from sweeps.tracking.base import Tracker
from sweeps.tracking.facts import cell_facts, study_facts
from sweeps.tracking.registry import get_tracker

LIVE = 15.0  # seconds between two looks at the running cells
RESULTS = 3  # metrics of one condition at most


class TrackingView:
    """Calls a tracker, and switches the tracker off at its first error. Results are never affected."""

    def __init__(self, name: str | None, root: Path, study: Study):
        """Opens the study in the tracker.

        Args:
            name: name of the tracker; None for none.
            root: folder of all runs.
            study: the study.

        Raises:
            MuvlaError: no tracker has this name.
        """
        self.tracker: Tracker | None = None if name is None else get_tracker(name)(root)
        self._looked = 0.0
        self._try(lambda tracker: tracker.open_study(study_facts(study, root)))

    def reconcile(self, entries: Iterable[Entry]) -> None:
        """Mends the records of finished cells that the tracker lacks or has as failed or incomplete."""
        done = {entry.run.train: entry for entry in entries}

        def mend(tracker: Tracker) -> None:
            facts = {train: cell_facts(entry) for train, entry in done.items()}
            outdated = tracker.outdated({train: len(cell.results) for train, cell in facts.items()})
            for train in facts:
                if train in outdated:
                    tracker.log_cell(facts[train])

        if done:
            self._try(mend)

    def look(self, entries: Iterable[Entry]) -> None:
        """Logs running cells, at most every `LIVE` seconds."""
        if self.tracker is None or time.monotonic() - self._looked < LIVE:
            return
        self._looked = time.monotonic()
        for entry in entries:
            if entry.run.is_created:
                self.log(entry)

    def log(self, entry: Entry) -> None:
        """Logs a cell as it is now."""
        if entry.run.folder.is_dir():
            self._try(lambda tracker: tracker.log_cell(cell_facts(entry)))

    def _try(self, call: Callable[[Tracker], None]) -> None:
        if self.tracker is None:
            return
        try:
            call(self.tracker)
        except Exception as error:
            name, self.tracker = type(self.tracker).__name__, None
            warnings.warn(f"{name} is off for this run ({error}); results are not affected", stacklevel=3)
