"""The content of a page: the frames of a study and the facts beside them. Every section reads this object alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from analysis.figures.style import COLOURS
from muvla.evaluation.records import GridRows, TakenMeasurement

DONE = "done"


@dataclass(frozen=True)
class CellState:
    """One planned cell of the study.

    Attributes:
        label: the variant, with its training length where the variant has several.
        seed: training seed.
        state: done, running, partial, planned, failed, "not a measurement" or damaged.
        updates: updates of the newest checkpoint.
        planned_updates: updates of the whole training.
        problem: the error of a cell that failed or is damaged; empty otherwise.
    """

    label: str
    seed: int
    state: str
    updates: int = 0
    planned_updates: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Filmstrip:
    """Pictures of one demonstration that show the task.

    Attributes:
        task: the task's name.
        instruction: the instruction of the episode.
        pictures: (step, phase, image as a data URI); cameras stand side by side.
    """

    task: str
    instruction: str
    pictures: tuple[tuple[int, str, str], ...]


@dataclass(frozen=True)
class RecordedEpisode:
    """An episode of a trained policy, played again.

    Attributes:
        label: the variant.
        seed: training seed.
        protocol: id of the protocol.
        episode: number of the episode in the protocol.
        intervention: canonical name, or "none".
        frames: number of frames in the sheet.
        cameras: cameras in each frame, side by side.
        sheet: WebP picture of all frames in one row, as a data URI or the address of a file.
        overlay: the same frames under the attention of the action rows; empty without attention.
        steps: step of every frame.
        phases: phase of every frame.
        change: 1 - cos between the memory read at a frame's step and at the step before; empty without memory.
        outcome: how the episode ended, in words.
        success: whether it succeeded.
    """

    label: str
    seed: int
    protocol: str
    episode: int
    intervention: str
    frames: int
    cameras: int
    sheet: str
    overlay: str
    steps: tuple[int, ...]
    phases: tuple[str, ...]
    change: tuple[float, ...]
    outcome: str
    success: bool


@dataclass(frozen=True)
class Content:
    """Everything that a page shows.

    Attributes:
        name: the study's name.
        title: its question.
        notes: its notes in Markdown; they hold what the numbers cannot show.
        labels: every variant of the study in its order, with its training length where a variant has several.
        states: a state for every planned cell.
        rates: `analysis.frames.tidy`, without lines before the first result.
        pairs: `analysis.intervention_frames.paired_frame`.
        undefined: (label, intervention) of the pairs that are not applicable.
        contrasts: `analysis.contrasts.contrast_frame`.
        updates: `analysis.time_to_learn.update_frame`.
        verdicts: `analysis.verdicts.verdict_frame`.
        baselines: `analysis.baselines.baseline_frame`.
        curves: columns label, seed, update, quantity, value of the training logs.
        costs: columns of `sweeps.costs.HEADER`.
        published: columns protocol, label, value, n, source, differs: published success rates on the same tasks.
        grids: (grid, `analysis.intervention_frames.grid_frame`).
        measurements: (measurement, its frame).
        primary: metric of the primary family.
        planned_contrasts: contrasts that the study plans.
        predictions: number of the study's predictions.
        differences: sentences on the fields in which variants differ.
        coverage: sentences on what the truncation and the chunk can credit.
        filmstrip: pictures of the task, or None.
        episodes: recorded episodes.
        commands: commands that make the results and this page.
        files: (address, description) of the files beside the page.
        facts: (name, value) of the origin of the rows.
        mixes: parts of the origin in which the rows differ.
        written: time at which the page was written, in words; empty leaves the time out.
    """

    name: str
    title: str
    notes: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    states: tuple[CellState, ...] = ()
    rates: pd.DataFrame = field(default_factory=pd.DataFrame)
    pairs: pd.DataFrame = field(default_factory=pd.DataFrame)
    undefined: frozenset[tuple[str, str]] = frozenset()
    contrasts: pd.DataFrame = field(default_factory=pd.DataFrame)
    updates: pd.DataFrame = field(default_factory=pd.DataFrame)
    verdicts: pd.DataFrame = field(default_factory=pd.DataFrame)
    baselines: pd.DataFrame = field(default_factory=pd.DataFrame)
    curves: pd.DataFrame = field(default_factory=pd.DataFrame)
    costs: pd.DataFrame = field(default_factory=pd.DataFrame)
    published: pd.DataFrame = field(default_factory=pd.DataFrame)
    grids: tuple[tuple[GridRows, pd.DataFrame], ...] = ()
    measurements: tuple[tuple[TakenMeasurement, pd.DataFrame], ...] = ()
    primary: str = "success"
    planned_contrasts: int = 0
    predictions: int = 0
    differences: tuple[str, ...] = ()
    coverage: tuple[str, ...] = ()
    filmstrip: Filmstrip | None = None
    episodes: tuple[RecordedEpisode, ...] = ()
    commands: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    mixes: tuple[str, ...] = ()
    written: str = ""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Training seeds of the plan."""
        return tuple(sorted({state.seed for state in self.states}))

    @property
    def counts(self) -> Counter[str]:
        """State → number of cells."""
        return Counter(state.state for state in self.states)

    @property
    def plain(self) -> pd.DataFrame:
        """Lines of `rates` without intervention."""
        return self.rates[self.rates["intervention"] == "none"] if len(self.rates) else self.rates

    @property
    def protocols(self) -> list[str]:
        return list(self.rates["protocol"].drop_duplicates()) if len(self.rates) else []

    def colour(self, label: str) -> str:
        """CSS value of the colour of a variant or a label; the ink for another name."""
        variants = list(dict.fromkeys(self.labels.values()))
        variant = self.labels.get(label, label)
        return f"var(--v{variants.index(variant) % len(COLOURS)})" if variant in variants else "var(--ink)"


def with_labels(frame: pd.DataFrame, labels: Mapping[tuple[str, int], str]) -> pd.DataFrame:
    """A tidy frame with the column `label`."""
    if frame.empty:
        return frame
    return frame.assign(label=[labels[v, int(u)] for v, u in zip(frame["variant"], frame["U"], strict=True)])
