"""The section of a report on the cost of each variant's memory."""

from __future__ import annotations

import pandas as pd

from analysis.report.folder import ReportFolder
from analysis.tables import to_markdown
from sweeps.costs import HEADER, NOTE


def cost_section(folder: ReportFolder, costs: tuple[tuple[str, ...], ...]) -> list[str]:
    """Writes the table of costs; empty without costs.

    Args:
        folder: where files go.
        costs: a line of `sweeps.costs.HEADER` for each variant.
    """
    if not costs:
        return []
    table = pd.DataFrame(costs, columns=HEADER)
    folder.write_table("costs", table)
    folder.write_csv("costs.csv", table)
    return ["## Cost of each variant's memory", "", f"{NOTE}.", "", to_markdown(table), ""]
