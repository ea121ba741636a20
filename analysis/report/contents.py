"""The contents of a report besides the cells' rows."""

from __future__ import annotations

from dataclasses import dataclass, field

from analysis.report.beside import OtherResult
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.records import Baselines
from sweeps.contrasts import Contrasts
from sweeps.predictions import Prediction


@dataclass(frozen=True)
class Report:
    """The texts and inputs of a report besides the cells' rows.

    Attributes:
        name: the study's name.
        title: its title or question.
        command: the command that repeats study and report.
        notes: the study's notes in Markdown.
        coverage: sentences on cue-to-decision pairs and look-ahead.
        differences: sentences on the fields in which variants differ.
        mix_provenance: accept cells of different code versions, devices or simulators.
        baselines: protocol id → its baselines.
        predictions: the study's predictions.
        costs: a line of `sweeps.costs.HEADER` for each variant.
        contrasts: primary metric and test of the contrasts.
        pairs: (variant, reference) of every contrast.
        protocols: the study's protocols.
        others: results of policies that no study trained (`muvla report --beside`).
        registrations: prediction → whether it was registered before its rows (`sweeps.registration`).
    """

    name: str
    title: str
    command: str
    notes: str
    coverage: tuple[str, ...]
    differences: tuple[str, ...] = ()
    mix_provenance: bool = False
    baselines: dict[str, Baselines] = field(default_factory=dict)
    predictions: tuple[Prediction, ...] = ()
    costs: tuple[tuple[str, ...], ...] = ()
    contrasts: Contrasts = field(default_factory=Contrasts)
    pairs: tuple[tuple[str, str], ...] = ()
    protocols: tuple[Protocol, ...] = ()
    registrations: dict[Prediction, str] = field(default_factory=dict)
    others: tuple[OtherResult, ...] = ()
