"""The page of studies from their run folders, also while their cells still run."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from analysis.page.films import record
from analysis.page.filmstrip import make_filmstrip, save_filmstrip
from analysis.page.write import write_results_page
from analysis.report.contents import Report
from analysis.report.gather import report_of
from muvla.data.store import EpisodeStore
from muvla.errors import MuvlaError
from muvla.interventions import canonical_name, parse_intervention
from muvla.runs.evaluate import Evaluator
from muvla.runs.status import updates_done
from sweeps.baselines import without_simulator
from sweeps.cell_results import CellResults
from sweeps.costs import cost_rows
from sweeps.ledger import Entry, Ledger
from sweeps.plan import coverage_lines
from sweeps.predictions import Prediction
from sweeps.study import Study
from sweeps.study_results import StudyResults

SHARE = 0.1  # of the time of a sweep that its page may take


class LivePage:
    """Writes `index.html` of studies from their run folders.

    Costs, coverage and the results of finished cells do not change, so each is read once.
    """

    def __init__(
        self,
        studies: Iterable[Study],
        ledger: Ledger,
        folder: Path,
        command: str,
        registrations: Mapping[Prediction, str] | None = None,
    ):
        """The page of these studies.

        Args:
            studies: the studies.
            ledger: where run folders and datasets are.
            folder: folder of the page.
            command: the command that makes the results.
            registrations: prediction → whether it was registered before its rows.
        """
        self.studies, self.ledger, self.folder, self.command = list(studies), ledger, folder, command
        self.registrations = registrations
        self._done: dict[str, CellResults] = {}  # by train id
        self._next = 0.0  # time before which no page is written

    def __call__(self, _: Entry) -> None:
        """Writes the page after a cell, unless the pages so far took more than `SHARE` of the time."""
        started = time.monotonic()
        if started >= self._next:
            self.write()
            ended = time.monotonic()
            self._next = ended + (ended - started) / SHARE

    def show(self) -> Path | None:
        """Writes the page, or warns: a page that cannot be written costs no result. None without a page."""
        try:
            return self.write() if all(map(self.ledger.has_data, self.studies)) else None
        except Exception as error:
            warnings.warn(f"the page is not written ({error}); results are kept", stacklevel=2)
            return None

    def write(self) -> Path:
        """Writes the page as the run folders are now; returns the file."""
        read = self._read()
        return self.write_results(read, report_of(read, self.command, registrations=self.registrations))

    def write_results(self, read: Sequence[StudyResults], report: Report) -> Path:
        """Writes the page of results that were read; returns the file."""
        progress = {entry.run.train: _progress(entry) for entries, _ in self._opened for entry in entries}
        return write_results_page(read, report, self.folder, self.folder, progress)

    def _read(self) -> list[StudyResults]:
        """The results so far."""
        return [
            StudyResults(
                study,
                tuple((entry.item, self._results(entry)) for entry in entries),
                self.ledger.baselines(study),
                coverage,
                costs,
            )
            for study, (entries, _), (coverage, costs) in zip(self.studies, self._opened, self._facts, strict=True)
        ]

    def _results(self, entry: Entry) -> CellResults:
        if entry.run.train not in self._done:
            results = entry.results()
            if results.state != "done":
                return results
            self._done[entry.run.train] = results
        return self._done[entry.run.train]

    @cached_property
    def _opened(self) -> list[tuple[list[Entry], dict[str, EpisodeStore]]]:
        """(cells, data) of every study. Raises MuvlaError for data that are not collected."""
        opened = []
        for study in self.studies:
            stores = self.ledger.opened(study)
            opened.append((self.ledger.entries(study, stores), stores))
        self.folder.mkdir(parents=True, exist_ok=True)
        save_filmstrip(make_filmstrip(next(iter(stores.values()))), self.folder)
        return opened

    @cached_property
    def _facts(self) -> list[tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]]:
        """(coverage, costs) of every study."""
        return [
            (tuple(coverage_lines(entries, stores)), tuple(map(tuple, cost_rows(study, stores))))
            for study, (entries, stores) in zip(self.studies, self._opened, strict=True)
        ]

    def record_episodes(self, count: int, say: Callable[[str], None]) -> None:
        """Plays the first episodes of every variant's first finished seed again, with and without an intervention.

        Tasks of a simulator are left out: their episodes take minutes.

        Args:
            count: episodes for each variant.
            say: called with a line for episodes that cannot be shown.
        """
        taken: set[str] = set()
        for entries, _ in self._opened:
            for entry in entries:
                if entry.item.variant not in taken and entry.state == "done":
                    taken.add(entry.item.variant)
                    _record(entry, count, self.folder, say)


def _record(entry: Entry, count: int, folder: Path, say: Callable[[str], None]) -> None:
    protocol = next(iter(entry.study.protocols), None)
    if protocol is None or not without_simulator([protocol]):
        return
    evaluator, numbers = Evaluator(entry.run), range(min(count, protocol.slots, protocol.episodes))
    measured = {name for of, name in entry.complete_rows() if of == protocol.id}
    for name in ("none", shown_intervention(entry.study)):
        if name in measured:
            try:
                record(evaluator, protocol, name, numbers, folder)
            except MuvlaError as error:
                say(f"{entry.item.label}, {name}: the page shows no episode: {error}")


def shown_intervention(study: Study) -> str | None:
    """The intervention that the page shows beside the plain run: the first with a donor, or the first of all."""
    names = [canonical_name(name) for name in study.interventions]
    donors = [name for name in names if (parsed := parse_intervention(name)) is not None and parsed.donor is not None]
    return next(iter([*donors, *names]), None)


def _progress(entry: Entry) -> tuple[int, str]:
    """(update of the newest checkpoint, error of a failed cell); nothing for files that cannot be read."""
    try:
        return updates_done(entry.run), (entry.run.failure or {}).get("error", "")
    except MuvlaError:
        return 0, ""
