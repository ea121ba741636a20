"""Progress of a sweep on a terminal and in a pipe."""

import io

from rich.console import Console

from sweeps.launchers.base import Progress
from sweeps.progress import CellProgress, duration


class Job:
    """A job with a label alone."""

    label = "K=8, seed 0"


def at(fraction):
    return [Progress(Job, f"update {fraction * 400:.0f}/400 loss 0.1 300 frames/s", fraction)]


def test_a_pipe_gets_a_line_per_minute_and_cell_with_the_time_left():
    said, seconds = [], iter([0, 0, 30, 61, 90, 122])
    console = Console(file=io.StringIO(), force_terminal=False)
    with CellProgress(2, said.append, console, lambda: next(seconds)) as progress:
        for fraction in (0.0, 0.25, 0.5, 0.6, 0.8):
            progress.show(0, at(fraction))
        progress.write("ended")
    assert said == [
        "K=8, seed 0: update 200/400 loss 0.1 300 frames/s, 50%, 61 s left",
        "K=8, seed 0: update 320/400 loss 0.1 300 frames/s, 80%, 30 s left",
        "ended",
    ]


def test_a_terminal_gets_a_bar_per_cell_and_the_lines_above():
    said, screen = [], io.StringIO()
    with CellProgress(2, said.append, Console(file=screen, force_terminal=True, width=140)) as progress:
        progress.show(1, at(0.25))
        progress.bars.refresh()
        progress.write("[1/2] ended")
        progress.show(2, [])
    assert not said and not progress.tasks
    assert (
        "K=8, seed 0" in screen.getvalue()
        and "update 100/400" in screen.getvalue()
        and "1 of 2 done" in screen.getvalue()
    )
    assert "[1/2] ended" in screen.getvalue()


def test_durations_are_short():
    assert [duration(s) for s in (3, 89, 90, 720, 12_240)] == ["3 s", "89 s", "2 min", "12 min", "3.4 h"]
