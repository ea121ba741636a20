"""The verb of the command line about chance and ceilings."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path


def add_ceiling_verb(
    verb: Callable[[str, Callable, str], argparse.ArgumentParser], evaluating: Callable, stop_on_signal: Callable
) -> None:
    """`verb` makes the parser of a verb of a name, function and help; `evaluating` adds the options of evaluations."""

    def run(arguments) -> int:
        return _ceilings(arguments, stop_on_signal)

    ceilings = verb("ceilings", run, "chance and ceilings: a random policy and the expert under the same protocols")
    ceilings.add_argument("what", nargs="+", help="a study file or its folder, a protocol, or a set of them")
    ceilings.add_argument("--retry-errors", action="store_true", help="run episodes that ended in an error again")
    evaluating(ceilings)


def _ceilings(arguments, stop_on_signal: Callable) -> int:
    """1 where one of them could not be run."""
    from muvla.errors import MuvlaError
    from muvla.evaluation.protocol import get_protocols
    from sweeps.baselines import measure_ceilings
    from sweeps.ledger import Ledger
    from sweeps.study import load_study

    if arguments.workers is not None and arguments.workers < 1:
        raise MuvlaError("--workers", got=arguments.workers, expected="at least 1", remedy="correct it")
    named = [load_study(Path(one)).protocols if Path(one).exists() else get_protocols(one) for one in arguments.what]
    wanted = {one.id: one for several in named for one in several}
    ledger = Ledger(arguments.runs, arguments.data)
    stop, retry = stop_on_signal(), arguments.retry_errors
    return min(1, measure_ceilings(wanted.values(), ledger, print, stop, retry, arguments.workers))
