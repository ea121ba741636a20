"""Tokens that are removed: nobody sees them, everything else stays where it is, and other slots notice nothing."""

import pytest
import torch

from helpers.policies import ON_CPU, PADDED_INTERFACE, PLAIN_INTERFACE, random_frames
from muvla.checkpoints.build import build_policy
from muvla.config import no_memory
from muvla.envs.phases import Phase
from muvla.interventions import parse_intervention
from muvla.models.diffusion import Noised
from muvla.models.sequence import Layout, Segment
from muvla.recurrence import Moment, Recurrence

INTERFACES = pytest.mark.parametrize("interface", [PADDED_INTERFACE, PLAIN_INTERFACE], ids=["mixed prompts", "one"])


def with_parameters_of(policy, other):
    """`other` with everything that both have, from `policy`."""
    own = dict(policy.named_parameters())
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            parameter.copy_(own[name][: len(parameter)])
    return other.eval()


@INTERFACES
@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("head", ["l1", "diffusion"])
def test_dropping_is_a_policy_without_the_tokens(cell_with, interface, backend, head):
    """Positions are reserved alike for both, so words and actions stand where they stood. Of a diffusion head, one
    pass: untrained, it makes anything of the last bit in fifty."""
    changes = {"model.attention": backend, "model.head": head, "data.tail": "repeat"}
    policy = build_policy(cell_with(changes), interface).eval()
    encoded, memory = random_frames(policy, 4), torch.randn(4, 4, 96)
    noise = Noised(torch.randn(4, 2, 2), torch.randn(4, 2, 2), torch.arange(4))
    without = with_parameters_of(policy, build_policy(cell_with({**changes, **no_memory()}), interface))
    narrow = with_parameters_of(policy, build_policy(cell_with({**changes, "memory.m": 3}), interface))

    def output(one, tokens, removed=None):
        with torch.no_grad():
            if head == "diffusion":
                return one.predict_noise(encoded, tokens, noise, removed)
            return one.step(encoded, tokens, removed=removed)

    every = output(policy, memory, torch.ones(4, 4, dtype=torch.bool))
    torch.testing.assert_close(every.actions, output(without, memory[:, :0]).actions, rtol=1e-5, atol=1e-5)
    last, three = output(policy, memory, (torch.arange(4) == 3).expand(4, 4)), output(narrow, memory[:, :3])
    torch.testing.assert_close(last.actions, three.actions, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(last.memory[:, :3], three.memory, rtol=1e-5, atol=1e-5)
    assert (output(policy, memory).actions - last.actions).abs().max() > 1e-4


@INTERFACES
def test_other_slots_keep_their_bits(cell_with, interface):
    policy = build_policy(cell_with(), interface).eval()
    encoded, memory, removed = random_frames(policy, 4), torch.randn(4, 4, 96), torch.zeros(4, 4, dtype=torch.bool)
    with torch.no_grad():
        plain = policy.step(encoded, memory)
        nothing = policy.step(encoded, memory, removed=removed)
        removed[1, 2] = True
        one = policy.step(encoded, memory, removed=removed)
        everywhere = policy.step(encoded, memory, removed=removed[1].expand(4, 4))
    others = [0, 2, 3]
    assert torch.equal(nothing.actions, plain.actions) and torch.equal(nothing.memory, plain.memory)
    assert torch.equal(one.actions[others], plain.actions[others])
    assert torch.equal(one.memory[others], plain.memory[others])
    assert not torch.equal(one.actions[1], plain.actions[1])
    assert torch.equal(one.actions[1], everywhere.actions[1]), "nor does the slot notice whether others lose it too"


def test_removed_tokens_are_padding():
    layout = Layout(vision=4, memory=3, text=2, action=4, reserve=3, padded=True)
    removed = torch.tensor([[False, True, False], [False, False, False]])
    segments = layout.segments(torch.tensor([2, 2]), removed)
    assert (segments == Segment.PAD).nonzero().tolist() == [[0, layout.memory_start + 1]]


def test_what_is_not_in_the_sequence_is_not_written(cell_with):
    """It stays what it was, and is there again when the schedule is over."""
    policy = build_policy(cell_with(), PLAIN_INTERFACE).eval()
    loop = Recurrence(policy, 2, parse_intervention("lesion(1)@cue_end"))
    states = []
    with torch.no_grad():
        for t in range(3):
            moment = Moment([t, t], [Phase.DELAY] * 2, ["a", "b"], [0, 1], events=[{"cue_end": 1}, {"cue_end": 9}])
            loop.tick(random_frames(policy, 2, seed=t), torch.tensor([t == 0] * 2), moment)
            states.append(loop.state["tokens"])
    assert torch.equal(states[1][0, 1], states[0][0, 1]) and not torch.equal(states[1][0, 0], states[0][0, 0])
    assert not torch.equal(states[2][0, 1], states[1][0, 1])
    assert not torch.equal(states[1][1, 1], states[0][1, 1]), "the other slot's cue has not ended"
    assert loop.fired == [1, 0]


def test_a_block_of_tokens_is_dropped_as_the_same_tokens_one_by_one(cell_with):
    policy = build_policy(cell_with(), PLAIN_INTERFACE).eval()
    actions = []
    for name in ("drop[1:2]", "lesion(1)"):
        loop = Recurrence(policy, 1, parse_intervention(name))
        with torch.no_grad():
            output, _ = loop.tick(random_frames(policy, 1), torch.tensor([True]), Moment([0], [Phase.CUE], ["a"], [0]))
        actions.append(output.actions)
    assert torch.equal(actions[0], actions[1])


def test_dropping_reaches_training(store, cell_with):
    """What is never seen gets no gradient."""
    from muvla.training.trainer import Trainer

    trainer = Trainer(cell_with({"intervention": "drop"}), store, parse_intervention("drop"))
    trainer.backward(trainer.prefetcher.window(8, last=True))
    gradient = trainer.policy.memory.initial.grad
    assert gradient is None or not gradient.any()
