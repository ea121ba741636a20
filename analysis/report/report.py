"""A study's report: tables, figures and text in a folder, and the study's summary in a results file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from analysis import by_seed
from analysis.baselines import baseline_frame, compared
from analysis.figures.style import assign_colours
from analysis.frames import NOT_APPLICABLE, file_stems, tidy
from analysis.intervention_frames import labelled, paired_frame, undefined_pairs
from analysis.paper.folder import write_paper
from analysis.report.checks import mixed
from analysis.report.contents import Report
from analysis.report.folder import ReportFolder
from analysis.report.interventions import WORDS
from analysis.report.markers import write_between_markers
from analysis.report.provenance import provenance_lines
from analysis.report.rates import protocol_section, sets_section
from analysis.report.sections import evidence_sections
from analysis.report.summary import Results, summary_block
from muvla.errors import MuvlaError
from muvla.evaluation.records import Baselines, CellRecords
from muvla.utils.io import disk_errors


def write_report(
    cells: list[CellRecords],
    out: Path,
    report: Report,
    results: Path | None = None,
    say: Callable[[str], None] = print,
    paper: bool = False,
) -> pd.DataFrame:
    """Writes tables (Markdown, CSV), figures (PNG, PDF) and report.md.

    Args:
        cells: the cells with their rows.
        out: folder of the report.
        report: texts and inputs besides the rows.
        results: file whose block between the study's markers becomes the study's summary.
        say: prints a text for the terminal.
        paper: also write the tables for a paper, into the folder `paper`.

    Returns:
        The tidy frame.

    Raises:
        MuvlaError: no cell has a result, or the cells differ in a part of provenance that must be alike.
    """
    report = replace(report, baselines={p: compared(each, cells, p) for p, each in report.baselines.items()})
    frame, mixes = tidy(cells), mixed(cells)
    _require_results(frame)
    if not report.mix_provenance:
        require_alike(mixes)
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    folder = ReportFolder(out, report.title, _colours(cells), say, undefined_pairs(cells))
    pairs = paired_frame(cells)
    _write_data(folder, cells, frame, pairs, report)
    text = [f"# {report.title}", "", *provenance_lines(cells, frame, report.command, mixes), *_notes(report)]
    text += _protocol_sections(folder, cells, frame, report)
    text += evidence_sections(folder, cells, frame, pairs, report)
    text += _incomplete(folder, cells, report.baselines)
    folder.write("report.md", "\n".join(text) + "\n")
    say(f"Tables and plots are in {out}: {', '.join(p.name for p in sorted(out.iterdir()))}")
    if paper:
        say(f"Tables for a paper are in {out / 'paper'}: {', '.join(write_paper(out, report.name, report.title))}")
    if results is not None:
        summary = summary_block(Results.read(out), report.name, report.title, results.parent)
        write_between_markers(results, report.name, summary)
        say(f"Summary written to {results}")
    return frame


def _require_results(frame: pd.DataFrame) -> None:
    if frame.empty:
        raise MuvlaError(
            "report", got="no complete result", expected="at least one evaluated cell", remedy="run the sweep first"
        )


def require_alike(mixes: list[str]) -> None:
    """Raises MuvlaError if `analysis.report.checks.mixed` found a part of provenance that differs."""
    if mixes:
        raise MuvlaError(
            "report",
            got=f"rows of several {'; '.join(mixes)}",
            expected="one of each",
            remedy="remove the run folders that differ (see their provenance/) and sweep again, or accept the mix with "
            "--mix-provenance, which the report then states",
        )


def _colours(cells: list[CellRecords]) -> dict[str, str]:
    """Variant → colour; a label that adds the training length has its variant's colour."""
    colours = assign_colours(cell.variant for cell in cells)
    return colours | {label: colours[cell.variant] for label, cell in labelled(cells)}


def _write_data(
    folder: ReportFolder, cells: list[CellRecords], frame: pd.DataFrame, pairs: pd.DataFrame, report: Report
) -> None:
    folder.write_csv("cells.csv", frame)
    folder.write(by_seed.NAME, by_seed.by_seed_file(frame, pairs, report.title, WORDS))
    baselines = baseline_frame(report.baselines)
    if not baselines.empty:
        folder.write_csv("baselines.csv", baselines)


def _notes(report: Report) -> list[str]:
    text = [report.notes.strip(), ""] if report.notes.strip() else []
    text += [f"- {line}." for line in report.coverage]
    if report.differences:
        text += ["", "Differences between variants in everything that is computed:", ""]
        text += [f"- {line}." for line in report.differences]
    return [*text, ""]


def _protocol_sections(
    folder: ReportFolder, cells: list[CellRecords], frame: pd.DataFrame, report: Report
) -> list[str]:
    text, suffixes = [], file_stems(frame["protocol"])
    undefined = {(cell.variant, name): reason for cell in cells for name, reason in cell.not_applicable.items()}
    for protocol, lines in frame.groupby("protocol", sort=False):
        baselines = report.baselines.get(protocol, Baselines())
        text += protocol_section(folder, protocol, lines, baselines, suffixes[protocol], undefined)
    sentences = [f"`{name}` on {variant}: {reason}" for (variant, name), reason in undefined.items()]
    text += [f"{NOT_APPLICABLE.capitalize()}, so not run: {'; '.join(sentences)}.", ""] if undefined else []
    return text + sets_section(folder, cells, frame, report.baselines)


def _incomplete(folder: ReportFolder, cells: list[CellRecords], baselines: Mapping[str, Baselines]) -> list[str]:
    missing = [f"{cell.variant}, seed {cell.cell.seed}: {cell.state}" for cell in cells if cell.state != "done"]
    damaged = [f"{cell.variant}, seed {cell.cell.seed}: {error}" for cell in cells for error in cell.damage]
    damaged += [f"baselines of {protocol}: {error}" for protocol, each in baselines.items() for error in each.damage]
    sentences = [f"Not complete: {'; '.join(missing)}."] if missing else []
    sentences += [f"Damaged, and in no table: {error}" for error in damaged]
    text = []
    for sentence in sentences:
        folder.say(f"{sentence}\n")
        text += [sentence, ""]
    return text
