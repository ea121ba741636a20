"""The results of a study: what its report is written from."""

from __future__ import annotations

from dataclasses import dataclass, field

from muvla.evaluation.records import Baselines, CellRecords
from sweeps.cell_results import CellResults
from sweeps.cells import StudyCell
from sweeps.costs import cost_rows
from sweeps.ledger import Ledger
from sweeps.plan import coverage_lines
from sweeps.study import Study


@dataclass(frozen=True)
class StudyResults:
    """The results of a study, from its run folders or from its committed rows.

    Attributes:
        study: the study.
        cells: every cell with its results, in the study's order.
        baselines: protocol id → baselines.
        coverage: sentences on cue-to-decision pairs and look-ahead.
        costs: a line of `sweeps.costs.HEADER` for each variant.
    """

    study: Study
    cells: tuple[tuple[StudyCell, CellResults], ...]
    baselines: dict[str, Baselines] = field(default_factory=dict)
    coverage: tuple[str, ...] = ()
    costs: tuple[tuple[str, ...], ...] = ()

    @property
    def records(self) -> list[CellRecords]:
        """The cells for tables and figures."""
        return [results.records(self.study, item) for item, results in self.cells]


def read_results(study: Study, ledger: Ledger) -> StudyResults:
    """The results that the run folders hold. Raises MuvlaError for data that are not collected."""
    stores = ledger.opened(study)
    entries = ledger.entries(study, stores)
    return StudyResults(
        study,
        tuple((entry.item, entry.results()) for entry in entries),
        ledger.baselines(study),
        tuple(coverage_lines(entries, stores)),
        tuple(map(tuple, cost_rows(study, stores))),
    )
