"""Where nothing succeeded: what one of the episodes shows when it is run again."""

from __future__ import annotations

from collections.abc import Callable

from muvla.errors import DiskError, Interrupted, NotAMeasurement
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.replay import checks
from muvla.models.policy import Policy
from muvla.runs.run import Run


def look(
    run: Run, protocol: Protocol, kind: str, policy: Policy, stop: Callable[[], bool], workers: int | None = None
) -> list[str]:
    """Lines for a person, on the first episode without an error. That it cannot be run again is said, and ends nothing;
    a broken invariant does, and so do a stop and a full disk."""
    row = next(row for row in run.result_rows(protocol, kind) if row.error is None)
    head = f"Nothing succeeded. Episode {row.seed - protocol.seed}, run again:"
    try:
        watched = run.watch(protocol, kind, row.seed, policy, stop, workers)
        return [head, *checks(*watched, policy.proprio is not None)]
    except (NotAMeasurement, DiskError, Interrupted):
        raise
    except Exception as error:
        return [head, f"  could not be run again: {error}"]
