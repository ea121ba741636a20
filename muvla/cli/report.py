"""`muvla report`: tables and figures from the episode rows."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from muvla.cli import options as o

if TYPE_CHECKING:
    from analysis.report.contents import Report
    from sweeps.predictions import Prediction
    from sweeps.study import Study
    from sweeps.study_results import StudyResults


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
    mix_studies: Annotated[
        bool,
        typer.Option("--mix-studies", metavar="", help="Allow studies that differ in what no factor declares."),
    ] = False,
    committed: Annotated[
        bool,
        typer.Option("--committed", metavar="", help="Read results/rows.jsonl.gz of the study, and no runs folder."),
    ] = False,
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
    from muvla.cli.studies import open_study
    from sweeps.rows_format import NAME
    from sweeps.rows_writer import write_rows
    from sweeps.union import require_one_study

    opened = [open_study(name, set, seeds, variants) for name in studies]
    if not mix_studies:
        require_one_study(opened)
    narrowing = _words({"--set": set, "--seeds": seeds, "--variant": variants})
    mixes = {"--mix-provenance": mix_provenance, "--mix-studies": mix_studies}
    written = _words({"--out": out, "--results": results, "--committed": committed} | mixes)
    commands = [] if committed else [shlex.join(["muvla", "sweep", name, *narrowing]) for name in studies]
    commands.append(shlex.join(["muvla", "report", *studies, *narrowing, *written]))
    read = _read_committed(studies, opened) if committed else _read_runs(opened, runs, data)
    folder = out or runs / "report" / opened[0].name
    cells = [cell for each in read for cell in each.records]
    registered = _registrations(studies, opened, runs)
    write_report(cells, folder, _contents(read, registered, " && ".join(commands), mix_provenance), results)
    if not committed:
        write_rows(folder / NAME, read)
    names = sorted(str(path) for path in folder.iterdir() if path.is_file())
    show_json({"studies": [study.name for study in opened], "folder": str(folder), "files": names})


def _read_runs(studies: list[Study], runs: Path, data: Path) -> list[StudyResults]:
    """The results of the studies in the runs folder."""
    from muvla.cli.studies import open_ledger
    from sweeps.study_results import read_results

    ledger = open_ledger(runs, data)
    return [read_results(study, ledger) for study in studies]


def _read_committed(names: list[str], studies: list[Study]) -> list[StudyResults]:
    """The committed results of the studies; a file that several studies share is read once."""
    from muvla.cli.studies import find_study
    from sweeps.committed import committed_results, results_folder
    from sweeps.rows_format import NAME
    from sweeps.rows_reader import read_rows_file

    files = [results_folder(find_study(name)) / NAME for name in names]
    contents = {file: read_rows_file(file) for file in dict.fromkeys(files)}
    return [committed_results(study, contents[file]) for study, file in zip(studies, files, strict=True)]


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


def _registrations(names: list[str], studies: list[Study], runs: Path) -> dict[Prediction, str]:
    """Prediction → whether it was registered before its rows."""
    from muvla.cli.studies import find_study
    from sweeps.registration import read_registrations

    statuses: dict[Prediction, str] = {}
    for name, study in zip(names, studies, strict=True):
        statuses |= read_registrations(study, find_study(name), runs, has_rows=True)
    return statuses


def _contents(
    read: list[StudyResults], registrations: dict[Prediction, str], command: str, mix_provenance: bool
) -> Report:
    """The contents of the page beside the tables of the studies.

    Args:
        read: the studies with their results.
        registrations: prediction → whether it was registered before its rows.
        command: the command of the report.
        mix_provenance: accept cells of different code versions, devices or simulators.
    """
    from analysis.report.contents import Report
    from sweeps.difference import difference_lines
    from sweeps.union import inseparable_lines, union_differences

    studies = [each.study for each in read]
    coverage = [line for each in read for line in each.coverage]
    mixed = [f"Mixed by --mix-studies: {text}" for text in union_differences(studies)]
    first = studies[0]
    return Report(
        name=first.name,
        title=first.title,
        command=command,
        notes=first.notes,
        coverage=tuple(dict.fromkeys([*coverage, *inseparable_lines(studies), *mixed])),
        differences=tuple(dict.fromkeys(line for study in studies for line in difference_lines(study))),
        mix_provenance=mix_provenance,
        baselines={name: baselines for each in read for name, baselines in each.baselines.items()},
        costs=tuple(dict.fromkeys(row for each in read for row in each.costs)),
        contrasts=first.contrasts,
        pairs=tuple(dict.fromkeys(pair for study in studies for pair in study.contrast_pairs)),
        protocols=tuple(dict.fromkeys(protocol for study in studies for protocol in study.protocols)),
        registrations=registrations,
        predictions=tuple(dict.fromkeys(prediction for study in studies for prediction in study.predictions)),
    )
