"""How far credit reaches: the Jacobian of the decision's chunk with respect to the memory written d steps before.

The observations of an episode are those up to its first decision step. Until then no action is executed, so every
policy sees the same observations. Trained and untrained policies are compared on the same episodes, on which neither
was trained. Every step has its tick, as in training, through the recurrence itself and without truncation. The chunk
(H, A) is predicted at the decision, in normalised actions. The write at the step before has d = 1; the episode's first
write has the largest d.

The norm is Frobenius', over all H·A numbers and the whole state. It is exact: one vector-Jacobian product per number of
the chunk gives that number's gradient at every d at once. Squares are summed, so no Jacobian is stored. Parameters are
constants, so the graph holds only the path through the memory. The precision is the policy's.

Training never credits d ≥ K: within a truncation block, a write and a loss are at most K − 1 ticks apart.

Legend: T steps up to the decision, H chunk, A action dim, m memory, D width, d distance in steps, K truncation length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from muvla.checkpoints.build import build_policy
from muvla.config import canonical
from muvla.envs.phases import Phase, events
from muvla.envs.workers import LocalEnv, WorkerEnv
from muvla.errors import MuvlaError
from muvla.memory.base import State, float_leaves
from muvla.models.policy import Encoded, Policy
from muvla.probes.base import Measurement, Subject
from muvla.probes.means import means
from muvla.recurrence import Moment, Recurrence


def jacobian_rows(
    policy: Policy, encoded: Encoded, seed: int = 0, check_stop: Callable[[], None] = lambda: None
) -> Iterator[list[list[Tensor]]]:
    """Yield, for each of the H·A numbers of the last tick's chunk, its gradient at d = 1, 2, ….

    Args:
        policy: with a memory that recurs.
        encoded: T ≥ 2 frames of one episode.
        seed: of the episode; keys every draw.
        check_stop: called before each number; it may raise.

    Yields:
        Per d, the leaves (1, m, D) of the gradient with respect to the state written d ticks before.
    """
    recurrence, written = Recurrence(policy, 1), []
    with _constant(policy), torch.enable_grad():
        for t in range(len(encoded.prefix)):
            if t:
                written.append(_in_graph(recurrence))
            is_first = torch.tensor([t == 0], device=encoded.prefix.device)
            output, _ = recurrence.tick(encoded[t : t + 1], is_first, Moment([t], [Phase.UNKNOWN], ["probe"], [seed]))
        leaves = [leaf for state in reversed(written) for leaf in float_leaves(state).values()]
        each = len(float_leaves(written[0]))
        for number in output.actions.flatten():
            check_stop()  # within the context, which then restores the policy's gradients
            gradients = torch.autograd.grad(number, leaves, retain_graph=True, allow_unused=True)
            whole = [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(gradients, leaves, strict=True)]
            yield [whole[i : i + each] for i in range(0, len(whole), each)]


def _in_graph(recurrence: Recurrence) -> State:
    """Return the written state as leaves of the graph, with respect to which gradients are computed."""
    recurrence.state = {
        name: leaf if leaf.requires_grad or not leaf.is_floating_point() else leaf.detach().requires_grad_()
        for name, leaf in recurrence.state.items()
    }
    return recurrence.state


@contextmanager
def _constant(policy: Policy) -> Iterator[None]:
    """Treat the policy's parameters as constants within the context."""
    trainable = [p for p in policy.parameters() if p.requires_grad]
    for p in trainable:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)


def jacobian_norms(
    policy: Policy, encoded: Encoded, seed: int = 0, check_stop: Callable[[], None] = lambda: None
) -> np.ndarray:
    """Return (T − 1,) Frobenius norms, d = 1 first.

    Args:
        policy, encoded, seed, check_stop: see `jacobian_rows`.
    """
    squares = np.zeros(len(encoded.prefix) - 1)
    for row in jacobian_rows(policy, encoded, seed, check_stop):
        squares += [sum(float(g.double().square().sum()) for g in leaves) for leaves in row]
    return np.sqrt(squares)


class Shown:
    """The observations of an episode up to its first decision step. Actions are zeros, and none is executed.

    Raises MuvlaError for an episode whose first step is the decision, or that has no decision.
    """

    def __init__(self, env: LocalEnv | WorkerEnv, seed: int, action_dim: int, check_stop: Callable[[], None]):
        env.start_reset(seed)
        observation, info = env.finish()
        decision = events(info).get("first_decision", 0)
        if decision < 1:
            raise MuvlaError(
                "probe gradients",
                got=f"episode seed {seed} without steps before a decision",
                expected="a task with a cue or a delay",
                remedy="choose a protocol whose task has a cue or a delay",
            )
        self.seed, self.facts, seen = seed, info, [observation]
        for _ in range(decision):
            check_stop()
            env.start_step(np.zeros(action_dim, np.float32))
            seen.append(env.finish()[0])
        self.images = np.stack([observation["images"] for observation in seen])  # (T, V, h, w, 3)
        self.proprio = np.stack([observation["proprio"] for observation in seen])  # (T, Q)

    @torch.no_grad()
    def encoded(self, policy: Policy, subject: Subject) -> Encoded:
        """Return the observations as T encoded frames for a policy."""
        device, interface = next(policy.parameters()).device, policy.interface
        images = self.images[:, interface.seen]
        if interface.first_image:
            first = np.repeat(images[:1, :1], len(images), axis=0)
            images = np.concatenate([images, first], axis=1)
        proprio = subject.statistics.normalise_proprio(self.proprio) if policy.proprio else self.proprio
        ids, lengths = policy.encode_text([interface.instruction(self.facts)] * len(images))
        images = torch.from_numpy(images).movedim(-1, -3)
        return policy.encode(
            images.to(device), torch.from_numpy(proprio).to(device), ids.to(device), lengths.to(device)
        )


def read(subject: Subject) -> pd.DataFrame:
    """Norm of the decision's gradient with respect to the memory written d steps before.

    Returns a line per d and policy. Column `value` is the mean norm over the `n` episodes that are long enough, with
    the interval of the mean. `trained` is False for the initial values. `beyond` is True where training never credits
    the distance. A release has no known cell: a release has no initial values and no K.
    """
    memory = subject.policy.memory
    for met, got, expected in (
        (memory.recurs, "a policy that carries no memory from tick to tick", "a memory that recurs"),
        (
            float_leaves(memory.init_state(1)),
            f"a memory of {memory.config.kind} that holds no floating-point number",
            "a memory with numbers, with respect to which there is a gradient",
        ),
    ):
        if not met:
            raise MuvlaError("probe gradients", got=got, expected=expected, remedy="leave the probe out")
    env = subject.open_env()
    env = env if isinstance(env, WorkerEnv) else LocalEnv(env)
    try:
        episodes = []
        for seed in subject.seeds:
            episodes.append(Shown(env, seed, subject.policy.interface.action_dim, subject.check_stop))
    finally:
        env.close()
    lines = _norms(subject, episodes, subject.policy, True)
    K = pd.NA
    if subject.cell is not None:
        K = canonical(subject.cell).block_length
        untrained = build_policy(subject.cell, subject.policy.interface).to(next(subject.policy.parameters()).device)
        lines += _norms(subject, episodes, untrained.eval(), False)
    table = means(pd.DataFrame(lines), ["trained", "d"])
    which = table["trained"].map({True: "trained", False: "initial values"})
    return table.assign(K=K, beyond=table["d"] > K - 1 if K is not pd.NA else pd.NA, policy=which)


def _norms(subject: Subject, episodes: list[Shown], policy: Policy, trained: bool) -> list[dict[str, float]]:
    lines = []
    for episode in episodes:
        norms = jacobian_norms(policy, episode.encoded(policy, subject), episode.seed, subject.check_stop)
        lines += [{"trained": trained, "d": d, "value": norm} for d, norm in enumerate(norms, start=1)]
    return lines


GRADIENTS = Measurement(
    "gradients", 1, read, x="d", y="value", curve="policy", low="low", high="high", needs_recurrence=True
)
