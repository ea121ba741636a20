"""Sanity checks for a condition in which no episode succeeded: one episode is run again and inspected."""

from __future__ import annotations

from muvla.errors import DiskError, Interrupted, NotAMeasurement
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.sanity_check import episode_checks
from muvla.runs.evaluate import Evaluator
from muvla.runs.results import result_rows


def sanity_check(evaluator: Evaluator, protocol: Protocol, intervention: str, workers: int | None = None) -> list[str]:
    """Lines about the first episode without an error.

    An episode that cannot be run again gives a line and ends nothing.

    Args:
        evaluator: the policy.
        protocol: the protocol.
        intervention: canonical name of the intervention, or "none".
        workers: environments side by side while donors are recorded.

    Raises:
        NotAMeasurement, DiskError, Interrupted: these end the evaluation too.
    """
    row = next(row for row in result_rows(evaluator.run, protocol, intervention) if row.error is None)
    head = f"Nothing succeeded. Episode {row.seed - protocol.seed}, run again:"
    try:
        episode, statistics = evaluator.replay(protocol, intervention, row.seed, workers)
        return [head, *episode_checks(episode, statistics, evaluator.policy.proprio is not None)]
    except (NotAMeasurement, DiskError, Interrupted):
        raise
    except Exception as error:
        return [head, f"  could not be run again: {error}"]
