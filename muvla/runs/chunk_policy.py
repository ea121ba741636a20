"""The policy of a run, for the MIKASA suite's own runner."""

from __future__ import annotations

from muvla.envs.mikasa.simulator import load_suite
from muvla.evaluation.chunk_policy import SuitePolicy
from muvla.evaluation.evaluate import require_prompts, require_unseen
from muvla.evaluation.protocol import Protocol
from muvla.runs.run import Run


def chunk_policy(run: Run, protocol: Protocol, device: str = "cpu") -> SuitePolicy:
    """The run's policy under the regime, instruction, image size and first seed of `protocol`.

    The runner decides episodes, step limit, stop at success and simulator. This function registers the suite's tasks,
    with the wrappers of the task that the suite's table lacks.

    Raises:
        MuvlaError: the simulator is missing, the policy was trained on the episodes, the prompt does not fit the
            policy, or `SuitePolicy` refuses it.
    """
    load_suite()
    trained_on = run.trained_on()
    require_unseen(protocol, trained_on.episodes)
    policy = run.load_policy(device)
    require_prompts(policy, [protocol])
    return SuitePolicy(policy, trained_on.statistics, protocol)
