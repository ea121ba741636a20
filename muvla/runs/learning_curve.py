"""The learning curve of a run: the numbers of its training log, thinned for pictures."""

from __future__ import annotations

import math
from typing import Any

from muvla.runs.run import Run
from muvla.utils.foreign import require_object
from muvla.utils.io import read_lines

POINTS = 120  # lines of a curve at most; the last one is always there
DIGITS = 6  # significant digits of a value


def learning_curve(run: Run) -> dict[str, list[float | None]]:
    """Column → values over the logged updates, with column `update` first; empty without a log.

    A value is None where a line lacks the column. Columns of lists and texts are left out.

    Raises:
        MuvlaError: the log is no file of JSON objects.
    """
    log = run.folder / "train.jsonl"
    lines = [require_object(line, f"{log}:{number}") for number, line in enumerate(read_lines(log), start=1)]
    step = max(1, math.ceil(len(lines) / POINTS))
    thinned = lines[::-1][::step][::-1]
    names = list(dict.fromkeys(name for line in thinned for name, value in line.items() if _is_number(value)))
    return {name: [_rounded(line.get(name)) for line in thinned] for name in names}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rounded(value: Any) -> float | None:
    """The value with DIGITS significant digits; None for no finite number."""
    return float(f"{value:.{DIGITS}g}") if _is_number(value) and math.isfinite(value) else None
