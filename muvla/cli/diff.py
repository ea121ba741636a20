"""`muvla diff`: the exact difference of two variants of a study."""

from __future__ import annotations

from typing import Annotated

import typer

from muvla.cli import options as o


def add(app: typer.Typer) -> None:
    o.verb(app, o.STUDY, 'muvla diff recall_quick "K=8" "K=1"')(diff)


def diff(
    study: o.StudyName,
    first: Annotated[str, typer.Argument(metavar="A", help="A variant.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another variant.")],
    set: o.Set = None,
    json: o.Json = False,
    runs: o.Runs = o.RUNS,
    data: o.Data = o.DATA_FOLDER,
) -> None:
    """Show the exact difference of two variants.

    The output names the declared fields, the fields that follow from them, and what the variants share.
    """
    from muvla.cli.output import show
    from muvla.cli.studies import open_ledger, open_study
    from sweeps.difference import difference, difference_text

    opened, ledger = open_study(study, set), open_ledger(runs, data)
    stores = ledger.opened(opened) if ledger.has_data(opened) else None
    text = difference_text(opened, stores, (first, second))  # raises for an unknown variant
    cells = {item.variant: item.cell for item in reversed(opened.cells())}
    fields = {name: {first: a, second: b} for name, (a, b) in difference(cells[first], cells[second]).items()}
    show({"study": opened.name, "variants": [first, second], "differences": fields}, text)
