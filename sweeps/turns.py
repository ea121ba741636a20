"""The order in which a sweep claims cells, so that several sweeps of one folder rarely want the same cell."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from muvla.errors import Busy
from muvla.utils.locks import holder, locked
from sweeps.ledger import Entry

FOLDER = ".sweeps"  # of the runs' folder: a lock for every sweep that runs
GOLDEN = 0.618033988749895  # multiples of the golden ratio cut a circle into even parts, however many there are


@contextlib.contextmanager
def sweep_number(root: Path) -> Iterator[int]:
    """The smallest number that no other sweep of the folder has now. The number is taken until the block ends."""
    for number in itertools.count():
        lock = root / FOLDER / str(number)
        if holder(lock) is None:
            with contextlib.suppress(_Taken), _taken(lock):
                yield number
                return


class _Taken(Exception):
    pass


@contextlib.contextmanager
def _taken(lock: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(lock))
        except Busy:
            raise _Taken from None
        yield


def in_turn(entries: Iterable[Entry], number: int) -> list[Entry]:
    """The cells in the order of one sweep: seeds stay whole, and each sweep begins at another cell of the seed.

    Args:
        entries: cells in the study's order.
        number: of the sweep; sweep 0 keeps the study's order.
    """
    ordered: list[Entry] = []
    for _, group in itertools.groupby(entries, lambda entry: entry.item.cell.seed):
        cells = list(group)
        first = int(len(cells) * (number * GOLDEN % 1))
        ordered += cells[first:] + cells[:first]
    return ordered
