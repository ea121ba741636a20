"""How far credit reaches: exact Jacobians, of the very recurrence, along what every policy is shown."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from helpers.policies import random_episode
from muvla.config import TaskConfig
from muvla.envs.phases import Phase
from muvla.envs.registry import make_env
from muvla.envs.workers import LocalEnv
from muvla.errors import MuvlaError
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.replay import replay
from muvla.probes.jacobians import Shown, jacobian_norms, jacobian_rows, read
from muvla.recurrence import Moment, Recurrence

T = 5  # ticks of an episode
SHORT = replace(get_protocol("recall-position3-rh@1"), name="short", episodes=4, slots=2)


def continued(policy, encoded, d, tokens):
    """The last tick's chunk, flat, from the memory (m, D) written d ticks before it: the definition."""
    recurrence = Recurrence(policy, 1)
    recurrence.state = {"tokens": tokens[None]}
    for t in range(T - d, T):
        moment = Moment([t], [Phase.UNKNOWN], ["probe"], [0])
        output, _ = recurrence.tick(encoded[t : t + 1], torch.tensor([False]), moment)
    return output.actions.flatten()


def written(policy, encoded, d):
    """What was written d ticks before the last."""
    recurrence = Recurrence(policy, 1)
    with torch.no_grad():
        for t in range(T - d):
            moment = Moment([t], [Phase.UNKNOWN], ["probe"], [0])
            recurrence.tick(encoded[t : t + 1], torch.tensor([t == 0]), moment)
    return recurrence.state["tokens"][0].clone()


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_the_jacobian_is_that_of_autograd_at_every_distance(cell_with, alpha):
    policy, encoded = random_episode(cell_with({"memory.alpha": alpha}), T)
    rows = list(jacobian_rows(policy, encoded))
    assert len(rows) == 2 * 2  # H·A
    norms = jacobian_norms(policy, encoded)
    assert norms.shape == (T - 1,) and norms.dtype == np.float64 and (norms > 0).all()
    for d in range(1, T):
        ours = torch.stack([row[d - 1][0][0] for row in rows])  # (H·A, m, D)
        memory = written(policy, encoded, d)
        theirs = torch.autograd.functional.jacobian(partial(continued, policy, encoded, d), memory)
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
        assert norms[d - 1] == pytest.approx(theirs.norm().item(), rel=1e-9)


def whole_norm(norm, hidden):
    """Llama's norm in the precision of what it is given; transformers' own is in single precision always, and rounding
    would drown a small step."""
    return norm.weight * hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + norm.variance_epsilon)


def test_the_linear_part_of_a_moving_average_is_that_of_finite_differences(cell_with, monkeypatch):
    """At α = 0.1, in a random direction, at every distance."""
    monkeypatch.setattr(LlamaRMSNorm, "forward", whole_norm)
    policy, encoded = random_episode(cell_with({"memory.alpha": 0.1}), T)
    rows, step = list(jacobian_rows(policy, encoded)), 1e-6
    for d in range(1, T):
        memory = written(policy, encoded, d)
        direction = torch.randn(memory.shape, generator=torch.Generator().manual_seed(d), dtype=memory.dtype)
        linear = torch.stack([(row[d - 1][0][0] * direction).sum() for row in rows])
        with torch.no_grad():
            ends = [continued(policy, encoded, d, memory + sign * step * direction) for sign in (1, -1)]
        assert (linear - (ends[0] - ends[1]) / (2 * step)).norm() < 1e-3 * linear.norm()


def test_asking_leaves_the_policy_as_it_was(cell_with):
    policy, encoded = random_episode(cell_with(), T)
    asked = [p.requires_grad for p in policy.parameters()]
    with torch.no_grad():  # as an evaluation is, in which it may be asked
        jacobian_norms(policy, encoded)
    assert [p.requires_grad for p in policy.parameters()] == asked
    assert all(p.grad is None for p in policy.parameters())


def test_what_training_cuts_is_not_cut_here(cell_with):
    """K is no part of the question: the norms are the same for every K."""
    one, eight = (jacobian_norms(*random_episode(cell_with({"truncation": K}), T)) for K in (1, 8))
    np.testing.assert_array_equal(one, eight)


@pytest.mark.parametrize("kind", ["dummy", "none"])
def test_without_a_memory_that_recurs_it_is_refused(subject_of, cell_with, kind):
    cell = cell_with({"memory.kind": kind, "memory.m": 4 if kind == "dummy" else 0})
    with pytest.raises(MuvlaError) as refused:
        read(subject_of(cell))
    assert refused.value.field == "probe gradients"


def test_what_is_shown_until_the_decision_is_what_every_policy_sees(subject_of, cell_with):
    subject = subject_of(cell_with())
    actor = PolicyActor(subject.policy, subject.statistics, SHORT)
    for seed, replayed in replay(actor, subject.open_env, subject.seeds).items():
        shown = Shown(LocalEnv(subject.open_env()), seed, 2, subject.check_stop)
        decision = replayed.outcome.info["first_decision_step"]
        assert len(shown.images) == len(shown.proprio) == decision + 1
        for t in range(decision + 1):
            np.testing.assert_array_equal(shown.images[t], replayed.frames[t])
            np.testing.assert_array_equal(shown.proprio[t], replayed.steps[t].proprio)


def test_the_frame(subject_of, cell_with):
    """A line per d and policy, as many as episodes are long, with K and what lies beyond it."""
    subject = subject_of(cell_with({"truncation": 2}), 2)
    with torch.no_grad():
        for p in subject.policy.parameters():
            p.mul_(1.05)  # stands for training
    frame = read(subject)
    episodes = [Shown(LocalEnv(subject.open_env()), seed, 2, subject.check_stop) for seed in subject.seeds]
    lengths = [len(one.images) - 1 for one in episodes]
    for trained in (False, True):
        own = frame[frame["trained"] == trained]
        assert own["d"].tolist() == list(range(1, max(lengths) + 1))
        assert own["n"].tolist() == [sum(length >= d for length in lengths) for d in own["d"]]
        assert own["policy"].unique().tolist() == ["trained" if trained else "initial values"]
    assert (frame["K"] == 2).all() and frame["beyond"].tolist() == (frame["d"] > 1).tolist()
    first = frame[frame["d"] == 1].set_index("trained")
    assert first.loc[True, "value"] != first.loc[False, "value"]
    values = [jacobian_norms(subject.policy, one.encoded(subject.policy, subject))[0] for one in episodes]
    assert first.loc[True, "value"] == pytest.approx(np.mean(values))
    assert first.loc[True, "low"] < np.mean(values) < first.loc[True, "high"]
    release = read(replace(subject, cell=None))
    assert release["trained"].all() and release["K"].isna().all() and release["beyond"].isna().all()


def test_an_episode_without_a_decision_has_no_distance(subject_of, cell_with):
    class Undecided(type(make_env(TaskConfig("RecallPosition3-v0")))):
        def reset(self, **asked):
            observation, info = super().reset(**asked)
            return observation, info | {"cue_length": 0, "delay_length": 0}

    subject = replace(subject_of(cell_with()), open_env=lambda: Undecided("RecallPosition3-v0"))
    with pytest.raises(MuvlaError) as refused:
        read(subject)
    assert refused.value.field == "probe gradients"
