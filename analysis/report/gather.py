"""The contents of a report on several studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analysis.report.contents import Report
from sweeps.difference import difference_lines
from sweeps.predictions import Prediction
from sweeps.study_results import StudyResults
from sweeps.union import inseparable_lines, union_differences


def report_of(
    read: Sequence[StudyResults],
    command: str,
    mix_provenance: bool = False,
    registrations: Mapping[Prediction, str] | None = None,
) -> Report:
    """The contents of the report beside the cells' rows; name, title and notes are those of the first study.

    Args:
        read: the studies with their results.
        command: the command of the report.
        mix_provenance: accept cells of different code versions, devices or simulators.
        registrations: prediction → whether it was registered before its rows.
    """
    studies = [each.study for each in read]
    coverage = [line for each in read for line in each.coverage]
    mixed = [f"Mixed by --mix-studies: {text}" for text in union_differences(studies)]
    first = studies[0]
    return Report(
        name=first.name,
        title=first.title,
        command=command,
        notes=first.notes,
        coverage=tuple(dict.fromkeys([*coverage, *inseparable_lines(studies), *mixed])),
        differences=tuple(dict.fromkeys(line for study in studies for line in difference_lines(study))),
        mix_provenance=mix_provenance,
        baselines={name: baselines for each in read for name, baselines in each.baselines.items()},
        costs=tuple(dict.fromkeys(row for each in read for row in each.costs)),
        contrasts=first.contrasts,
        pairs=tuple(dict.fromkeys(pair for study in studies for pair in study.contrast_pairs)),
        protocols=tuple(dict.fromkeys(protocol for study in studies for protocol in study.protocols)),
        registrations=dict(registrations or {}),
        predictions=tuple(dict.fromkeys(prediction for study in studies for prediction in study.predictions)),
    )
