"""Measures baselines: policies that were never trained, beside the cells of a study."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from muvla.envs.registry import task_info
from muvla.errors import DiskError, MuvlaError, NotAMeasurement
from muvla.evaluation.baselines import baseline_names
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.records import Summary, summarise
from muvla.runs.baselines import measure_baseline
from muvla.runs.run import Run
from sweeps.ledger import Ledger


@dataclass(frozen=True)
class BaselineResult:
    """The result of one baseline under one protocol."""

    protocol: Protocol
    baseline: str
    summary: Summary | None  # None if the baseline could not be run
    error: str | None = None  # why not


def measure_baselines(
    protocols: Iterable[Protocol],
    ledger: Ledger,
    say: Callable[[str], None] = print,
    should_stop: Callable[[], bool] = lambda: False,
    retry_errors: bool = False,
    workers: int | None = None,
) -> list[BaselineResult]:
    """Measures the baselines of every protocol and says a line for each of them.

    Args:
        protocols: the protocols.
        ledger: where run folders and datasets are.
        say: called with each line of output.
        should_stop: asked between episodes.
        retry_errors: whether episodes that ended in an error run again.
        workers: environments side by side; None for a default.

    Returns:
        The result of every baseline, also of those that could not be run.

    Raises:
        DiskError, NotAMeasurement: a fault that is not one protocol's.
        Interrupted: `should_stop` returned True.
    """
    results: list[BaselineResult] = []
    for protocol in protocols:
        for name in baseline_names(protocol):
            try:
                run = Run(ledger.root, ledger.data, name)
                rows = measure_baseline(run, protocol, should_stop, retry_errors, workers, say)
            except (DiskError, NotAMeasurement):
                raise
            except MuvlaError as error:
                results.append(BaselineResult(protocol, name, None, str(error)))
                say(f"{protocol.id} {name}: not run: {error}")
            else:
                results.append(BaselineResult(protocol, name, summarise(rows)))
                say(f"{protocol.id} {name}: {results[-1].summary.text()}")
    return results


def without_simulator(protocols: Iterable[Protocol]) -> list[Protocol]:
    """The protocols whose baselines take seconds, so that a sweep measures them without being asked."""
    return [protocol for protocol in protocols if not task_info(protocol.task.name).own_process]
