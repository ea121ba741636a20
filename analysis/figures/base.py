"""The contract of a figure. docs/extending/figure.md shows a complete example."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, get_args

import pandas as pd
from matplotlib.figure import Figure as Drawing

from analysis.figures.style import assign_colours
from analysis.frames import variants_in_order
from muvla.evaluation.records import GridRows, TakenMeasurement

FrameName = Literal[
    "rates", "training", "updates", "delays", "costs", "paired", "chunks", "grid", "measurement", "tasks"
]
FRAMES: tuple[FrameName, ...] = get_args(FrameName)


@dataclass(frozen=True)
class Subject:
    """The lines that one figure is drawn from.

    Attributes:
        lines: tidy lines of one protocol or one probe.
        study: the study's title.
        colours: variant → colour, for all variants of the study in its order.
        suffix: end of the file's stem, which tells protocols and probes apart; may be empty.
        probe: the grid or the measurement that the lines belong to; None for the frames of a protocol.
        variant: the variant of a figure that is drawn for one variant (`Figure.per_variant`).
        undefined: (variant, intervention) of the pairs that are not applicable, and so are never run.
    """

    lines: pd.DataFrame
    study: str = ""
    colours: dict[str, str] = field(default_factory=dict)
    suffix: str = ""
    probe: GridRows | TakenMeasurement | None = None
    variant: str | None = None
    undefined: frozenset[tuple[str, str]] = frozenset()

    def __post_init__(self):
        if not self.colours and len(self.lines):
            object.__setattr__(self, "colours", assign_colours(variants_in_order(self.lines)))

    @property
    def variants(self) -> list[str]:
        """The study's variants that occur in these lines, in the study's order."""
        present = set(self.lines["variant"]) if len(self.lines) else set()
        return [variant for variant in self.colours if variant in present]


class Figure(ABC):
    """A figure that the report draws wherever it applies.

    A subclass declares the frame that it needs, and returns a matplotlib figure. The report calls `applies` first, then
    `stem` and `caption`, and saves the result of `draw` as `<stem>.png` and `<stem>.pdf`.

    Attributes:
        frame: name of the frame that `Subject.lines` holds, one of

            - `rates`: `analysis.frames.tidy`, one protocol; also the frame of a committed `cells.csv`.
            - `training`: `analysis.training_log.training_frame`, all cells.
            - `updates`: `analysis.time_to_learn.update_frame`, one protocol.
            - `delays`: `analysis.delays.delay_frame`, one protocol.
            - `costs`: `analysis.costs.cost_frame`, one protocol.
            - `paired`: `analysis.intervention_frames.paired_frame`, one protocol.
            - `chunks`: `analysis.intervention_frames.chunk_frame`, one protocol.
            - `grid`: `analysis.intervention_frames.grid_frame`, one probe; `Subject.probe` is its `GridRows`.
            - `measurement`: `analysis.intervention_frames.measurement_frames`, one probe and protocol.
            - `tasks`: `analysis.pooled.Tasks.rates` of several studies, with the columns `score` and `metric`.

        per_variant: draw one figure for each variant; `Subject.variant` names it, and `lines` still hold all variants.
    """

    frame: ClassVar[FrameName]
    per_variant: ClassVar[bool] = False

    @abstractmethod
    def applies(self, subject: Subject) -> bool:
        """True if these lines have something to draw.

        A figure without content misleads, so the report leaves it out. `subject.lines` is never empty.
        """

    @abstractmethod
    def stem(self, subject: Subject) -> str:
        """Name of the file without extension, for example `"paired" + subject.suffix`.

        The stem is unique among all figures of a report, because equal stems would overwrite each other.
        """

    @abstractmethod
    def caption(self, subject: Subject) -> str:
        """One sentence that says what the figure shows; it becomes the alternative text of the image."""

    @abstractmethod
    def draw(self, subject: Subject) -> Drawing:
        """The figure, made with `analysis.figures.style.new_figure` and never with pyplot.

        Every variant has its colour from `subject.colours`, and every training seed is a mark or line of its own. Lines
        that never fired are written out (`style.write_never_fired`). The title is descriptive. Equal lines give equal
        figures: the report compares files byte by byte.
        """


def subjects_of(figure: Figure, subject: Subject) -> Iterator[Subject]:
    """The subject itself, or one subject per variant for a figure that is `per_variant`."""
    if not figure.per_variant:
        yield subject
        return
    for variant in subject.variants:
        yield replace(subject, variant=variant)
