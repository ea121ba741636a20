"""Progress of a sweep: a bar per cell on a terminal, and a line per minute and cell elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from sweeps.launchers.base import Progress

EVERY = 60.0  # seconds between two lines of a cell in a pipe or a batch job
LONGEST = 28  # characters of a cell's label beside its bar


class CellProgress:
    """Shows the cells that run.

    with CellProgress(total=10, say=print) as progress:
        progress.show(finished=2, running=[...])  # as often as wanted
        progress.write("a finished cell")
    """

    def __init__(
        self,
        total: int,
        say: Callable[[str], None],
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Shows nothing yet.

        Args:
            total: cells of the sweep.
            say: prints a line where there is no terminal.
            console: the terminal; None takes standard error.
            clock: seconds.
        """
        self.total, self.say, self.clock = total, say, clock
        console = console or Console(file=sys.stderr)
        self.bars = _make_bars(console) if console.is_terminal else None
        self.started = clock()
        self.began: dict[str, tuple[float, float]] = {}  # label → (time, fraction) of the first look at a cell
        self.said: dict[str, float] = {}
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> CellProgress:
        if self.bars is not None:
            self.bars.start()
            self.whole = self.bars.add_task("all cells", total=self.total, what="", left="")
        return self

    def __exit__(self, *_) -> None:
        if self.bars is not None:
            self.bars.stop()

    def write(self, line: str) -> None:
        """Prints a line above the bars."""
        if self.bars is None:
            self.say(line)
        else:
            self.bars.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self, finished: int, running: Sequence[Progress]) -> None:
        """Shows the state of the running cells.

        Args:
            finished: cells that have ended.
            running: the cells that run.
        """
        now = self.clock()
        for cell in running:
            self.began.setdefault(cell.job.label, (now, cell.fraction))
        if self.bars is None:
            self._say_due(running, now)
        else:
            self._draw(self.bars, finished, running, now)

    def _say_due(self, running: Sequence[Progress], now: float) -> None:
        """A line for every cell whose last line is a minute old."""
        for cell in running:
            label = cell.job.label
            if now - self.said.setdefault(label, now) >= EVERY:
                self.said[label] = now
                left = self.time_left(cell, now)
                self.say(f"{label}: {cell.message}, {cell.fraction:.0%}{f', {left} left' if left else ''}")

    def _draw(self, bars: Bars, finished: int, running: Sequence[Progress], now: float) -> None:
        done = finished + sum(cell.fraction for cell in running)
        spent = now - self.started
        left = duration(spent * (self.total - done) / done) if done and spent > EVERY / 6 else ""
        bars.update(self.whole, completed=done, what=f"{finished} of {self.total} done", left=left)
        labels = {cell.job.label for cell in running}
        for label in self.tasks.keys() - labels:
            bars.remove_task(self.tasks.pop(label))
        for cell in running:
            label = cell.job.label
            if label not in self.tasks:
                self.tasks[label] = bars.add_task(label[:LONGEST], total=1.0, what="", left="")
            left = self.time_left(cell, now)
            bars.update(self.tasks[label], completed=cell.fraction, what=cell.message, left=left)

    def time_left(self, cell: Progress, now: float) -> str:
        """Time that a cell still needs at its speed so far; empty while nothing is known."""
        began, first = self.began[cell.job.label]
        gained = cell.fraction - first
        return duration((now - began) * (1 - cell.fraction) / gained) if gained > 0.01 else ""


def duration(seconds: float) -> str:
    """`40 s`, `12 min` or `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _make_bars(console: Console) -> Bars:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[what]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}", markup=False),
    )
    return Bars(*columns, console=console, refresh_per_second=4)
