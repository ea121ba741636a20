"""How far credit reaches: the Jacobian of the decision's chunk with respect to the memory written d steps before.

Legend: T steps up to the decision, H chunk, A action dim, m memory, D width, d distance in steps, K truncation length.

Of an episode, the observations are those that its environment shows up to the first decision step. Until then nothing
that a policy does is executed, so they are the same for every policy: trained and untrained are compared on the same
ones, of episodes that neither was trained on. Every step has its tick, as in training, through the recurrence itself
and without truncation. The chunk (H, A) is the one predicted at the decision, in normalised actions; what was written
at the step before has d = 1, and the episode's first write the largest d.

The norm is Frobenius', over all H·A numbers and the whole state. It is exact: one vector-Jacobian product per number of
the chunk, each giving that number's gradient at every d at once; squares are summed up, so that no Jacobian is ever
held. Parameters take no part, and so only the path through the memory is in the graph. The precision is the policy's.

Training never credits d ≥ K: within a truncation block, a write and a loss are at most K − 1 ticks apart.
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
from muvla.memory.base import State
from muvla.models.policy import Encoded, Policy
from muvla.probes.base import Measurement, Subject
from muvla.probes.means import means
from muvla.recurrence import Moment, Recurrence


def jacobian_rows(
    policy: Policy, encoded: Encoded, seed: int = 0, check_stop: Callable[[], None] = lambda: None
) -> Iterator[list[list[Tensor]]]:
    """For each of the H·A numbers of the last tick's chunk, its gradient at d = 1, 2, …: the leaves (1, m, D) of the
    state that was written d ticks before. `encoded` are T ≥ 2 frames of one episode. `check_stop` is called before each
    number, and may raise."""
    recurrence, written = Recurrence(policy, 1), []
    with _constant(policy), torch.enable_grad():
        for t in range(len(encoded.prefix)):
            if t:
                written.append(_in_graph(recurrence))
            is_first = torch.tensor([t == 0], device=encoded.prefix.device)
            output, _ = recurrence.tick(encoded[t : t + 1], is_first, Moment([t], [Phase.UNKNOWN], ["probe"], [seed]))
        leaves = [leaf for state in reversed(written) for leaf in state.values()]
        each = len(written[0])
        for number in output.actions.flatten():
            check_stop()  # in here, where the policy's gradients are then switched on again
            found = torch.autograd.grad(number, leaves, retain_graph=True, allow_unused=True)
            whole = [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True)]
            yield [whole[i : i + each] for i in range(0, len(whole), each)]


def _in_graph(recurrence: Recurrence) -> State:
    """The state that was written, from which on gradient is asked for."""
    recurrence.state = {
        name: leaf if leaf.requires_grad else leaf.detach().requires_grad_() for name, leaf in recurrence.state.items()
    }
    return recurrence.state


@contextmanager
def _constant(policy: Policy) -> Iterator[None]:
    asked = [p for p in policy.parameters() if p.requires_grad]
    for p in asked:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in asked:
            p.requires_grad_(True)


def jacobian_norms(
    policy: Policy, encoded: Encoded, seed: int = 0, check_stop: Callable[[], None] = lambda: None
) -> np.ndarray:
    """(T − 1,) Frobenius norms, of d = 1 first."""
    squares = np.zeros(len(encoded.prefix) - 1)
    for row in jacobian_rows(policy, encoded, seed, check_stop):
        squares += [sum(float(g.double().square().sum()) for g in leaves) for leaves in row]
    return np.sqrt(squares)


class Shown:
    """What an episode's environment shows up to the first decision step, under actions of zeros, none of which is
    executed. Raises MuvlaError where that step is the first, or there is none."""

    def __init__(self, env: LocalEnv | WorkerEnv, seed: int, action_dim: int, check_stop: Callable[[], None]):
        env.start_reset(seed)
        observation, info = env.finish()
        decision = events(info).get("first_decision", 0)
        if decision < 1:
            raise MuvlaError(
                "probe gradients",
                got=f"episode seed {seed} without steps before a decision",
                expected="a task with a cue or a delay",
                remedy="read a protocol whose task has one",
            )
        self.seed, self.instruction, seen = seed, info["instruction"], [observation]
        for _ in range(decision):
            check_stop()
            env.start_step(np.zeros(action_dim, np.float32))
            seen.append(env.finish()[0])
        self.images = np.stack([one["images"] for one in seen])  # (T, V, h, w, 3)
        self.proprio = np.stack([one["proprio"] for one in seen])  # (T, Q)

    @torch.no_grad()
    def encoded(self, policy: Policy, subject: Subject) -> Encoded:
        device, interface = next(policy.parameters()).device, policy.interface
        first = interface.first_image
        own = self.images[:, : interface.cameras - first]
        images = np.concatenate([own, np.repeat(self.images[:1, :1], len(own), axis=0)], axis=1) if first else own
        proprio = subject.statistics.normalise_proprio(self.proprio) if policy.proprio else self.proprio
        ids, lengths = policy.encode_text([self.instruction] * len(own))
        images = torch.from_numpy(images).movedim(-1, -3)
        return policy.encode(
            images.to(device), torch.from_numpy(proprio).to(device), ids.to(device), lengths.to(device)
        )


def read(subject: Subject) -> pd.DataFrame:
    """A line per d and policy: `value` is the mean norm over the `n` episodes that are so long, with its interval.
    `trained` is False for the cell's initial values; of a release, whose cell is not known, there are none, and K is
    not known. `beyond` says that training never credits that distance."""
    if not subject.policy.memory.recurrent:
        raise MuvlaError(
            "probe gradients",
            got="a policy that carries no memory from tick to tick",
            expected="a memory that recurs",
            remedy="leave this probe out",
        )
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
        K = canonical(subject.cell).truncation
        untrained = build_policy(subject.cell, subject.policy.interface).to(next(subject.policy.parameters()).device)
        lines += _norms(subject, episodes, untrained.eval(), False)
    table = means(pd.DataFrame(lines), ["trained", "d"])
    which = table["trained"].map({True: "trained", False: "initial values"})
    return table.assign(K=K, beyond=table["d"] > K - 1 if K is not pd.NA else pd.NA, policy=which)


def _norms(subject: Subject, episodes: list[Shown], policy: Policy, trained: bool) -> list[dict[str, float]]:
    lines = []
    for one in episodes:
        norms = jacobian_norms(policy, one.encoded(policy, subject), one.seed, subject.check_stop)
        lines += [{"trained": trained, "d": d, "value": norm} for d, norm in enumerate(norms, start=1)]
    return lines


READING = Measurement(
    "gradients", 1, read, x="d", y="value", curve="policy", low="low", high="high", needs_recurrence=True
)
