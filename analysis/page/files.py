"""The files of a report's folder that the page links to."""

from __future__ import annotations

from pathlib import Path

DESCRIPTIONS = {
    "report.md": "tables and text",
    "by-seed.md": "tables by training seed",
    "cells.csv": "rates of every cell and condition",
    "paired.csv": "paired differences",
    "verdicts.csv": "verdicts on the predictions",
    "contrasts.csv": "contrasts over training seeds",
    "updates.csv": "success at the updates of every training",
    "baselines.csv": "baselines",
    "curves.csv": "learning curves",
    "rows.jsonl": "episode rows",
    "rows.jsonl.gz": "episode rows",
    "main.tex": "main table for LaTeX",
}


def beside(folder: Path) -> tuple[tuple[str, str], ...]:
    """(name, description) of the data and table files in a folder, the described ones first."""
    names = sorted(path.name for path in folder.glob("*") if path.suffix in (".csv", ".md", ".tex", ".jsonl", ".gz"))
    names.sort(key=lambda name: name not in DESCRIPTIONS)
    return tuple((name, DESCRIPTIONS.get(name, "")) for name in names)
