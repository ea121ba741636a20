"""The folder of a report: its files, its tables and its pictures."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure as Drawing

from analysis import tables
from analysis.figures.base import FrameName, Subject, subjects_of
from analysis.figures.digest import KEY, data_digest
from analysis.figures.registry import figures_of
from analysis.figures.style import DPI, LOOK
from muvla.errors import MuvlaError
from muvla.utils.io import write_atomically

MOST_VARIANTS = 100  # of a figure; the panels and the labels of more are too small to read, and take hours to lay out


@dataclass(frozen=True)
class ReportFolder:
    """Writes a report's files.

    Attributes:
        path: the folder.
        title: the study's title, which figures carry.
        colours: variant → colour, in the study's order.
        say: prints a text for the terminal.
        undefined: (variant, intervention) of the pairs that are not applicable.
    """

    path: Path
    title: str
    colours: dict[str, str]
    say: Callable[[str], None]
    undefined: frozenset[tuple[str, str]] = frozenset()

    def write(self, name: str, text: str) -> None:
        write_atomically(self.path / name, text.encode())

    def write_csv(self, name: str, frame: pd.DataFrame) -> None:
        """Writes a frame without its column `order`, which only sorts."""
        self.write(name, frame.drop(columns="order", errors="ignore").to_csv(index=False))

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Writes a table as `<name>.md`."""
        self.write(f"{name}.md", tables.to_markdown(table) + "\n")

    def pictures(self, frame: FrameName, subject: Subject) -> list[str]:
        """Draws every registered figure of this frame that applies; returns a Markdown line per image.

        A study of more than `MOST_VARIANTS` variants gets a line that says so, and no image.

        Raises:
            MuvlaError: two figures have the same stem.
        """
        subject = replace(subject, study=self.title, colours=self.colours, undefined=self.undefined)
        if len(subject.variants) > MOST_VARIANTS:
            few = "`muvla report --variant NAME` draws some of them"
            return [f"No figure: {len(subject.variants)} variants are more than {MOST_VARIANTS}. {few}."]
        links: dict[str, str] = {}
        for name, figure in figures_of(frame).items():
            for each in subjects_of(figure, subject):
                if not figure.applies(each):
                    continue
                stem = figure.stem(each)
                if stem in links:
                    raise MuvlaError(
                        f"figure {name}: stem",
                        got=stem,
                        expected="a name that no other figure of this report has",
                        remedy="return another stem from `stem`",
                    )
                save(figure.draw(each), self.path, stem)
                links[stem] = f"![{figure.caption(each)}]({stem}.png)"
        return list(links.values())


def save(figure: Drawing, folder: Path, stem: str) -> None:
    """Writes a figure as PNG, and without its title as PDF for a paper; equal figures give equal bytes.

    The PNG file holds the digest of the figure's data.
    """
    about = {"png": {KEY: data_digest(figure)}, "pdf": {"CreationDate": None}}  # a date would differ between reports
    for suffix, metadata in about.items():
        if suffix == "pdf":
            figure.suptitle("")
        content = io.BytesIO()
        with rc_context(LOOK):
            figure.savefig(content, format=suffix, dpi=DPI, metadata=metadata)
        write_atomically(folder / f"{stem}.{suffix}", content.getvalue())
