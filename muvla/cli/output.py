"""Output of the command line: results as text or as one JSON object, and exit statuses.

`print` is for progress. It goes to stdout, to nowhere under `--quiet`, and to stderr under `--json`, so that stdout
then holds one JSON object and nothing else. `show` and `result_line` print results,
also under `--quiet`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TextIO

from muvla.utils.table import text_table

EXIT_MISSING, EXIT_BAD_INPUT, EXIT_FAILED_CELLS, EXIT_INTERRUPTED = 1, 2, 3, 130


@dataclass
class _Mode:
    json: bool = False
    verbose: bool = False
    stdout: TextIO | None = None  # where results go while `print` goes elsewhere


_mode = _Mode()


@contextlib.contextmanager
def output_mode(json: bool = False, quiet: bool = False, verbose: bool = False) -> Iterator[None]:
    """How the verb inside the block prints."""
    global _mode
    before, _mode = _mode, _Mode(json, verbose, sys.stdout)
    with contextlib.ExitStack() as stack:
        if json:
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        elif quiet:
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        try:
            yield
        finally:
            _mode = before


def show(data: Any, text: str) -> None:
    """Print a result: `data` as JSON under `--json`, else `text`."""
    if _mode.json:
        show_json(data)
    else:
        result_line(text)


def show_json(data: Any) -> None:
    """Print `data` as the one JSON object on stdout; without `--json` print nothing.

    A function is called for its data under `--json` alone.
    """
    if _mode.json:
        data = data() if callable(data) else data
        print(json.dumps(data, indent=1, ensure_ascii=False, default=str), file=_mode.stdout, flush=True)


def result_line(text: str) -> None:
    """Print a line of a result as soon as it is known, also under `--quiet`. Under `--json` it goes to stderr."""
    print(text, file=sys.stdout if _mode.json else _mode.stdout or sys.stdout, flush=True)


def show_table(name: str, header: Sequence[str], rows: Sequence[dict[str, Any]], empty: str) -> None:
    """Print rows as a table, or as `{name: rows}` under `--json`.

    Args:
        name: key of the rows in the JSON object.
        header: keys of a row that the table shows.
        rows: the rows; JSON gets all of their keys.
        empty: text in place of a table without rows.
    """
    cells = [["–" if row.get(key) is None else row[key] for key in header] for row in rows]
    show({name: list(rows)}, text_table(header, cells) if rows else empty)


def summary_data(summary: Any) -> dict[str, Any]:
    """The counts and rates of a `muvla.evaluation.records.Summary`; nothing for None."""
    if summary is None:
        return {}
    rates = ("touch_rate", "choice_accuracy", "success_rate")
    return asdict(summary) | {name: getattr(summary, name) for name in rates}


def detail(text: str) -> None:
    """Print to stderr under `--verbose`."""
    if _mode.verbose:
        print(text, file=sys.stderr)
