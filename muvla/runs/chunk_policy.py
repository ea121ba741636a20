"""A trained cell or a release, for the MIKASA suite's own runner."""

from __future__ import annotations

from muvla.envs.mikasa.simulator import load_suite
from muvla.evaluation.chunk_policy import SuitePolicy
from muvla.evaluation.evaluate import require_prompts, require_unseen
from muvla.evaluation.protocol import Protocol
from muvla.runs.run import Run


def chunk_policy(run: Run, protocol: Protocol, device: str = "cpu") -> SuitePolicy:
    """`run` under `protocol`, of which the runner takes over regime, instruction, image size and first seed; episodes,
    step limit, break at success and simulator are its own. Registers the suite's tasks, with the wrappers of the one
    that its table lacks.

    Raises MuvlaError as `SuitePolicy`, without the simulator, and where an evaluation here would: for episodes that
    were trained on, and for a prompt that the policy has no place for.
    """
    load_suite()
    statistics, _, training_episodes = run._trained_with()
    require_unseen(protocol, training_episodes)
    policy = run.load_policy(device)
    require_prompts(policy, [protocol])
    return SuitePolicy(policy, statistics, protocol)
