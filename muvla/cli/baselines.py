"""The verb of the command line about chance and baselines."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path


def add_baseline_verb(
    verb: Callable[[str, Callable, str], argparse.ArgumentParser], evaluating: Callable, stop_on_signal: Callable
) -> None:
    """`verb` makes the parser of a verb of a name, function and help; `evaluating` adds the options of evaluations."""

    def run(arguments) -> int:
        return _baselines(arguments, stop_on_signal)

    baselines = verb("baselines", run, "chance and baselines: a random policy and the expert under the same protocols")
    baselines.add_argument("what", nargs="+", help="a study file or its folder, a protocol, or a set of them")
    baselines.add_argument("--retry-errors", action="store_true", help="run episodes that ended in an error again")
    evaluating(baselines)


def _baselines(arguments, stop_on_signal: Callable) -> int:
    """1 where one of them could not be run."""
    from muvla.errors import MuvlaError
    from muvla.evaluation.catalog import get_protocols
    from sweeps.baselines import measure_baselines
    from sweeps.ledger import Ledger
    from sweeps.loader import load_study

    if arguments.workers is not None and arguments.workers < 1:
        raise MuvlaError("--workers", got=arguments.workers, expected="at least 1", remedy="correct it")
    named = [load_study(Path(one)).protocols if Path(one).exists() else get_protocols(one) for one in arguments.what]
    wanted = {one.id: one for several in named for one in several}
    ledger = Ledger(arguments.runs, arguments.data)
    stop, retry = stop_on_signal(), arguments.retry_errors
    return min(1, measure_baselines(wanted.values(), ledger, print, stop, retry, arguments.workers))
