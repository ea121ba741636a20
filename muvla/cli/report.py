"""`muvla report`: tables and figures from the episode rows."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from muvla.cli import options as o

if TYPE_CHECKING:
    from sweeps.study import Study


def add(app: typer.Typer) -> None:
    o.verb(app, o.STUDY, "muvla report recall_quick --out report")(report)


def report(
    studies: o.StudyNames,
    set: o.Set = None,
    seeds: o.Seeds = None,
    variants: o.Variants = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of the report.", show_default="report/STUDY in --runs"),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the tables between the generated markers of this file."),
    ] = None,
    rows: Annotated[bool, typer.Option("--rows", metavar="", help="Also write every episode row.")] = False,
    mix_provenance: Annotated[
        bool,
        typer.Option(
            "--mix-provenance", metavar="", help="Allow rows of different code versions, devices or simulators."
        ),
    ] = False,
    json: o.Json = False,
    runs: o.Runs = o.RUNS,
    data: o.Data = o.DATA_FOLDER,
) -> None:
    """Write tables and figures from the episode rows.

    Several studies of the same tasks share one report.
    """
    from analysis.report.report import write_report
    from muvla.cli.output import show_json
    from muvla.cli.studies import open_ledger, open_study

    opened = [open_study(name, set, seeds, variants) for name in studies]
    narrowing = _words({"--set": set, "--seeds": seeds, "--variant": variants})
    written = _words({"--out": out, "--results": results, "--rows": rows, "--mix-provenance": mix_provenance})
    commands = [shlex.join(["muvla", "sweep", name, *narrowing]) for name in studies]
    commands.append(shlex.join(["muvla", "report", *studies, *narrowing, *written]))
    cells, contents = _contents(opened, open_ledger(runs, data), " && ".join(commands), mix_provenance, rows)
    folder = out or runs / "report" / opened[0].name
    write_report(cells, folder, contents, results)
    files = sorted(str(path) for path in folder.iterdir() if path.is_file())
    show_json({"studies": [study.name for study in opened], "folder": str(folder), "files": files})


def _words(options: dict[str, object]) -> list[str]:
    """The options that were given, as words of a command line."""
    words: list[str] = []
    for option, value in options.items():
        if value is True:
            words.append(option)
        elif value:
            for item in value if isinstance(value, list) else [value]:
                words += [option, str(item)]
    return words


def _contents(studies: list[Study], ledger, command: str, mix_provenance: bool, rows: bool):
    """The cells of the studies, and what the page says beside their tables."""
    from analysis.report.contents import Report
    from sweeps.costs import cost_rows
    from sweeps.difference import difference_lines
    from sweeps.plan import coverage_lines

    cells, coverage, differences, costs, baselines = [], [], [], [], {}
    for study in studies:
        stores = ledger.opened(study)
        entries = ledger.entries(study, stores)
        cells += [entry.records() for entry in entries]
        baselines |= ledger.baselines(study)
        coverage += coverage_lines(entries, stores)
        differences += difference_lines(study)
        costs += map(tuple, cost_rows(study, stores))
    first = studies[0]
    return cells, Report(
        name=first.name,
        title=first.title,
        command=command,
        notes=first.notes,
        coverage=tuple(dict.fromkeys(coverage)),
        differences=tuple(dict.fromkeys(differences)),
        mix_provenance=mix_provenance,
        with_rows=rows,
        baselines=baselines,
        costs=tuple(dict.fromkeys(costs)),
        contrasts=first.contrasts,
        pairs=tuple(dict.fromkeys(pair for study in studies for pair in study.contrast_pairs)),
        protocols=tuple(dict.fromkeys(protocol for study in studies for protocol in study.protocols)),
        predictions=tuple(dict.fromkeys(prediction for study in studies for prediction in study.predictions)),
    )
