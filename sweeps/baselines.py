"""What a sweep, or `muvla baselines`, measures beside the cells of a study: policies that were never trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from muvla.envs.registry import task_info
from muvla.errors import DiskError, MuvlaError, NotAMeasurement
from muvla.evaluation.baselines import baseline_names
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.records import summarise
from muvla.runs.baselines import measure_baseline
from muvla.runs.run import Run
from sweeps.ledger import Ledger


def measure_baselines(
    protocols: Iterable[Protocol],
    ledger: Ledger,
    say: Callable[[str], None] = print,
    should_stop: Callable[[], bool] = lambda: False,
    retry_errors: bool = False,
    workers: int | None = None,
) -> int:
    """Says a line for each protocol and policy; returns how many could not be run, of which it says why. Raises
    DiskError and NotAMeasurement, which are no property of one protocol, and Interrupted."""
    failed = 0
    for protocol in protocols:
        for name in baseline_names(protocol):
            try:
                run = Run(ledger.root, ledger.data, name)
                rows = measure_baseline(run, protocol, should_stop, retry_errors, workers, say)
            except (DiskError, NotAMeasurement):
                raise
            except MuvlaError as error:
                failed += 1
                say(f"{protocol.id} {name}: not run: {error}")
            else:
                say(f"{protocol.id} {name}: {summarise(rows).text()}")
    return failed


def without_simulator(protocols: Iterable[Protocol]) -> list[Protocol]:
    """Those whose episodes take a second or two for all of them, so that a sweep measures their baselines unasked."""
    return [one for one in protocols if not task_info(one.task.name).own_process]
