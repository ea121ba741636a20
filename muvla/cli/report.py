"""`muvla report`: tables and figures from the episode rows."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from muvla.cli import options as o

if TYPE_CHECKING:
    from analysis.report.contents import Report
    from sweeps.predictions import Prediction
    from sweeps.study import Study
    from sweeps.study_results import StudyResults


Results = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Also write the tables between the generated markers of this file."),
]
MixStudies = Annotated[
    bool, typer.Option("--mix-studies", metavar="", help="Allow studies that differ in what no factor declares.")
]
MixProvenance = Annotated[
    bool,
    typer.Option("--mix-provenance", metavar="", help="Allow rows of different code versions, devices or simulators."),
]
Audience = Annotated[
    str | None,
    typer.Option(
        "--for",
        metavar="paper",
        help="paper: also write LaTeX tables that fit a column, and an appendix by seed, into FOLDER/paper.",
        **o.choice("--for", ("paper",)),
    ),
]
Beside = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ID|FILE",
        help="Add a served policy or a release by its id, or a result file of vla-eval or LeRobot; repeatable.",
    ),
]
Episodes = Annotated[
    int, typer.Option(metavar="N", help="Episodes of every variant that the page shows; 0 for none.", min=0)
]


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
    results: Results = None,
    mix_studies: MixStudies = False,
    committed: Annotated[
        bool,
        typer.Option("--committed", metavar="", help="Read results/rows.jsonl.gz of the study, and no runs folder."),
    ] = False,
    beside: Beside = None,
    episodes: Episodes = 3,
    audience: Audience = None,
    mix_provenance: MixProvenance = False,
    json: o.Json = False,
    runs: o.Runs = o.RUNS,
    data: o.Data = o.DATA_FOLDER,
) -> None:
    """Write tables, figures and the page index.html from the episode rows.

    Episodes of the page are played again, but for tasks of a simulator. Several studies of the same tasks share one
    report.
    """
    from analysis.page.write import write_results_page
    from analysis.report.gather import report_of
    from analysis.report.report import write_report
    from muvla.cli.output import show_json
    from muvla.cli.reading import committed_folder, option_words, read_committed, read_runs
    from muvla.cli.studies import open_study
    from sweeps.rows_format import NAME
    from sweeps.rows_writer import write_rows
    from sweeps.union import require_one_study

    opened = [open_study(name, set, seeds, variants) for name in studies]
    if not mix_studies:
        require_one_study(opened)
    narrowing = option_words({"--set": set, "--seeds": seeds, "--variant": variants})
    mixes = {"--mix-provenance": mix_provenance, "--mix-studies": mix_studies}
    places = {"--out": out, "--results": results, "--committed": committed, "--beside": beside, "--for": audience}
    written = option_words(places | mixes)
    swept = [] if committed else [["muvla", "sweep", name, *narrowing] for name in studies]
    command = " && ".join(map(shlex.join, [*swept, ["muvla", "report", *studies, *narrowing, *written]]))
    read = read_committed(studies, opened) if committed else read_runs(opened, runs, data)
    folder = out or runs / "report" / opened[0].name
    contents = report_of(read, command, mix_provenance, _registrations(studies, opened, runs))
    contents = _with_others(contents, beside or (), runs, data)
    write_report([cell for each in read for cell in each.records], folder, contents, results, paper=audience == "paper")
    if committed:
        page = write_results_page(read, contents, folder, committed_folder(studies[0]))
    else:
        write_rows(folder / NAME, read)
        page = _write_page(read, contents, folder, (runs, data), episodes)
    print(f"The page is {page}")
    names = sorted(str(path) for path in folder.iterdir() if path.is_file())
    show_json({"studies": [study.name for study in opened], "folder": str(folder), "files": names})


def _with_others(contents: Report, names: Sequence[str], runs: Path, data: Path) -> Report:
    from analysis.report.beside import read_others

    return replace(contents, others=read_others(names, runs, data, contents.protocols))


def _write_page(
    read: list[StudyResults], contents: Report, folder: Path, places: tuple[Path, Path], episodes: int
) -> Path:
    """Write the page of run folders; `places` are the folders of runs and of data."""
    from analysis.page.live import LivePage
    from muvla.cli.studies import open_ledger

    page = LivePage([each.study for each in read], open_ledger(*places), folder, contents.command)
    page.record_episodes(episodes, print)
    return page.write_results(read, contents)


def _registrations(names: list[str], studies: list[Study], runs: Path) -> dict[Prediction, str]:
    """Prediction → whether it was registered before its rows."""
    from muvla.cli.studies import find_study
    from sweeps.registration import read_registrations

    statuses: dict[Prediction, str] = {}
    for name, study in zip(names, studies, strict=True):
        statuses |= read_registrations(study, find_study(name), runs, has_rows=True)
    return statuses
