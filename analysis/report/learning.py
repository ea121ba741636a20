"""The section of a report on the time to learn."""

from __future__ import annotations

import pandas as pd

from analysis import tables
from analysis.figures.base import Subject
from analysis.frames import file_stems
from analysis.report.folder import ReportFolder
from analysis.time_to_learn import NAME, TITLE, WORDS, drawn_lines, time_sentences, time_table


def learning_section(folder: ReportFolder, updates: pd.DataFrame) -> list[str]:
    """Writes the frame, a table and figures of the time to learn; returns the Markdown, empty without one.

    Args:
        folder: where files go.
        updates: `analysis.time_to_learn.update_frame` of the cells.
    """
    if updates.empty:
        return []
    folder.write_csv(NAME, updates)
    text, suffixes = ["## Time to learn", "", *time_sentences(updates), "", WORDS, ""], file_stems(updates["protocol"])
    for protocol, lines in updates.groupby("protocol", sort=False):
        table = time_table(lines)
        folder.write_table(f"time-to-learn{suffixes[protocol]}", table)
        folder.say(f"\n{TITLE[:1].upper()}{TITLE[1:]}, {protocol}:\n{tables.to_text(table)}\n")
        text += [tables.to_markdown(table), ""]
        text += [*folder.pictures("updates", Subject(drawn_lines(lines), suffix=suffixes[protocol])), ""]
    return text
