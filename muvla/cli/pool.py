"""`muvla pool`: one comparison over the tasks of several studies."""

from __future__ import annotations

import shlex
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import typer

from muvla.cli import options as o
from muvla.cli.report import MixProvenance


def add(app: typer.Typer) -> None:
    o.verb(app, o.STUDY, "muvla pool ladder/easy.py ladder/hard.py --out pooled")(pool)


def pool(
    studies: o.StudyNames,
    set: o.Set = None,
    seeds: o.Seeds = None,
    variants: o.Variants = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of the files.", show_default="pool/NAME in --runs")
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the tables between the generated markers of this file."),
    ] = None,
    committed: Annotated[
        bool,
        typer.Option("--committed", metavar="", help="Read results/rows.jsonl.gz of the studies, and no runs folder."),
    ] = False,
    mix_provenance: MixProvenance = False,
    json: o.Json = False,
    runs: o.Runs = o.RUNS,
    data: o.Data = o.DATA_FOLDER,
) -> None:
    """Compare variants over the tasks of several studies.

    Each study contributes its first protocol. All have the same variants and contrasts.
    """
    from analysis.report.pool import write_pooled
    from muvla.cli.output import show_json
    from muvla.cli.reading import option_words, read_committed, read_runs
    from muvla.cli.studies import open_study

    opened = [open_study(name, set, seeds, variants) for name in studies]
    read = read_committed(studies, opened) if committed else read_runs(opened, runs, data)
    name = _common_name([study.name for study in opened])
    folder = out or runs / "pool" / name
    narrowing = {"--set": set, "--seeds": seeds, "--variant": variants}
    places = {"--out": out, "--results": results, "--committed": committed, "--mix-provenance": mix_provenance}
    command = shlex.join(["muvla", "pool", *studies, *option_words(narrowing | places)])
    write_pooled(read, folder, name, command, results, mix_provenance)
    print(f"The report is {folder / 'pooled.md'}")
    show_json({"studies": [study.name for study in opened], "folder": str(folder)})


def _common_name(names: list[str]) -> str:
    """The words that the names begin with: ladder for ladder_easy and ladder_hard."""
    places = zip(*(name.split("_") for name in names), strict=False)
    common = takewhile(lambda words: len(set(words)) == 1, places)
    return "_".join(words[0] for words in common) or "tasks"
