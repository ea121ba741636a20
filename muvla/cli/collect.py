"""`muvla collect`: collect the demonstrations of a study."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from muvla.cli import options as o


def add(app: typer.Typer) -> None:
    o.verb(app, o.STUDY, "muvla collect recall_quick")(collect)


def collect(
    study: o.StudyName,
    set: o.Set = None,
    seeds: o.Seeds = None,
    variants: o.Variants = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Simulator processes.", show_default="one per core", callback=o.at_least_one("--jobs")
        ),
    ] = None,
    json: o.Json = False,
    runs: o.Runs = o.RUNS,
    data: o.Data = o.DATA_FOLDER,
) -> None:
    """Collect the demonstrations of a study.

    The scripted expert plays the episodes. `muvla train` and `muvla sweep` do so too where demonstrations are missing.
    """
    from tqdm import tqdm

    from muvla.cli.output import show
    from muvla.cli.studies import open_ledger, open_study

    opened = open_study(study, set, seeds, variants)
    with tqdm(unit="episode", disable=not sys.stderr.isatty(), dynamic_ncols=True) as bar:
        stores = open_ledger(runs, data).stores(opened, _progress(bar), jobs)
    parts = {part.path: part for store in stores.values() for part in store.parts}
    datasets = [
        {
            "path": str(path),
            "episodes": len(store),
            "frames": store.frames,
            "attempts": store.attempts,
            "content": store.sha256,
        }
        for path, store in parts.items()
    ]
    show({"datasets": datasets}, "\n".join(_line(dataset) for dataset in datasets))


def _line(dataset: dict) -> str:
    size = f"{dataset['episodes']} episodes, {dataset['frames']} frames, {dataset['attempts']} attempts"
    return f"{dataset['path']}: {size}, content {dataset['content'][:12]}"


def _progress(bar) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        bar.total, bar.n = total, done
        bar.refresh()
        if bar.disable and done % max(1, total // 10) == 0:
            print(f"{done}/{total} episodes")

    return progress
