"""The folder `paper` of a report: tables for columns, the appendix by seed, and a document that holds them all."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.paper.layout import Entry, PaperTable, Row
from analysis.paper.results import appendix_tables, main_tables
from analysis.report.summary import Results
from muvla.utils.io import write_atomically
from sweeps.costs import NOTE

FOLDER, APPENDIX, DOCUMENT = "paper", "appendix.tex", "document.tex"
PREAMBLE = r"""% pdflatex document.tex
\documentclass[10pt,twocolumn]{article}
\usepackage[letterpaper,textwidth=6.75in,textheight=9.2in]{geometry}
\setlength{\columnsep}{0.25in}
\usepackage{booktabs}
\begin{document}
"""


def write_paper(results: Path, name: str, title: str) -> list[str]:
    """Writes `paper/*.tex` from the CSV files of a results folder.

    Args:
        results: the folder, which holds `cells.csv`.
        name: the study's name.
        title: the study's title.

    Returns:
        The names of the files.
    """
    folder, frames = results / FOLDER, Results.read(results)
    texts: dict[str, str] = {f"{stem}.tex": table.latex() for stem, table in main_tables(frames, name, title)}
    costs = results / "costs.csv"
    if costs.exists():
        texts["costs.tex"] = cost_table(pd.read_csv(costs, dtype=str, keep_default_na=False), name, title).latex()
    texts[APPENDIX] = "\n".join(table.latex() for table in appendix_tables(frames, name, title))
    inputs = [rf"\input{{{file}}}" + ("\n\\clearpage" if file == APPENDIX else "") for file in texts]
    texts[DOCUMENT] = PREAMBLE + "\n".join(inputs) + "\n\\end{document}\n"
    folder.mkdir(exist_ok=True)
    for stale in set(folder.glob("*.tex")) - {folder / file for file in texts}:
        stale.unlink()
    for file, text in texts.items():
        write_atomically(folder / file, text.encode())
    return sorted(texts)


def cost_table(costs: pd.DataFrame, name: str, title: str) -> PaperTable:
    """A row per variant, a column per part of `sweeps.costs.HEADER`.

    Args:
        costs: texts with the columns of `sweeps.costs.HEADER`.
        name: the study's name.
        title: the study's title.
    """
    columns = [column for column in costs.columns if column not in ("variant", "mechanism")]
    rows = [Row(line["variant"], tuple(Entry(line[column]) for column in columns)) for _, line in costs.iterrows()]
    caption = f"{title} Cost of each variant's memory. {NOTE}."
    return PaperTable(f"tab:{name}-costs", caption, "variant", tuple(columns), tuple(rows))
