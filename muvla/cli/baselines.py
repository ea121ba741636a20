"""`muvla baselines`: measure a random policy and the scripted expert."""

from __future__ import annotations

from typing import Annotated

import typer

from muvla.cli import options as o

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Studies, protocols, or sets of protocols.")]


def add(app: typer.Typer) -> None:
    o.verb(app, o.STUDY, "muvla baselines recall_quick mikasa5-rh@1")(baselines)


def baselines(
    names: Names,
    retry_errors: o.RetryErrors = False,
    workers: o.Workers = None,
    json: o.Json = False,
    runs: o.Runs = o.RUNS,
    data: o.Data = o.DATA_FOLDER,
) -> int:
    """Measure a random policy and the scripted expert.

    Both run under the protocols of the policies. Result tables end with these rows. Exit status 1 means that one of
    them could not be run.
    """
    from muvla.cli.computing import stop_on_signal
    from muvla.cli.output import EXIT_MISSING, result_line, show_json, summary_data
    from muvla.cli.studies import open_ledger
    from sweeps.baselines import measure_baselines

    protocols = {protocol.id: protocol for name in names for protocol in _protocols(name)}
    stop = stop_on_signal()
    results = measure_baselines(protocols.values(), open_ledger(runs, data), result_line, stop, retry_errors, workers)
    rows = [
        {"protocol": result.protocol.id, "baseline": result.baseline, "error": result.error}
        | summary_data(result.summary)
        for result in results
    ]
    show_json({"results": rows})
    return EXIT_MISSING if any(result.error for result in results) else 0


def _protocols(name: str):
    from muvla.cli.studies import find_study
    from muvla.evaluation.catalog import get_protocols
    from sweeps.loader import load_study

    return get_protocols(name) if "@" in name else load_study(find_study(name)).baseline_protocols
