"""The section of a report on the cost of each variant's memory."""

from __future__ import annotations

import pandas as pd

from analysis.costs import cost_frame
from analysis.figures.base import Subject
from analysis.frames import file_stems
from analysis.report.folder import ReportFolder
from analysis.tables import to_markdown
from sweeps.costs import HEADER, NOTE

TITLE = "## Cost of each variant's memory"


def cost_section(folder: ReportFolder, costs: tuple[tuple[str, ...], ...], rates: pd.DataFrame) -> list[str]:
    """Writes the table of costs and the figures of accuracy against cost; says so where no cost is known.

    Args:
        folder: where files go.
        costs: a line of `sweeps.costs.HEADER` for each variant.
        rates: the tidy frame of the cells.
    """
    if not costs:
        return [TITLE, "", "Not known: this report was made without the costs of its variants.", ""]
    table = pd.DataFrame(costs, columns=HEADER)
    folder.write_table("costs", table)
    folder.write_csv("costs.csv", table)
    links, suffixes = [], file_stems(rates["protocol"])
    for protocol, lines in cost_frame(rates, table).groupby("protocol", sort=False):
        links += folder.pictures("costs", Subject(lines, suffix=suffixes[protocol]))
    return [TITLE, "", f"{NOTE}.", "", to_markdown(table), "", *links, ""]
