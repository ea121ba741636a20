"""The contract, mechanism by mechanism."""

import pytest
import torch

from helpers.errors import refused
from helpers.policies import PLAIN_INTERFACE, random_frames
from muvla.checkpoints.build import build_policy
from muvla.config import canonical, dummy, ema, no_memory, tbptt
from muvla.config.serialization import content_hash, identity
from muvla.envs.phases import Phase
from muvla.memory.base import detach, export
from muvla.memory.contract import Taps
from muvla.models.init import initialise
from muvla.recurrence import Moment, Recurrence
from muvla.training.trainer import Trainer

MECHANISMS = {"none": no_memory(), "dummy": dummy(4), "tokens": tbptt(8, 4), "ema": ema(0.1, 4)}
FIRST, LATER = torch.tensor([True, True]), torch.tensor([False, False])


def moment(slots=2, tick=0):
    return Moment([tick] * slots, [Phase.DECISION] * slots, [str(i) for i in range(slots)], list(range(slots)))


def run(policy, ticks, is_first, slots=2):
    """Outputs of `ticks` ticks on fixed random frames."""
    loop = Recurrence(policy, slots)
    return [loop.tick(random_frames(policy, slots, seed=t), is_first(t), moment(slots, t)) for t in range(ticks)], loop


@pytest.mark.parametrize("name", MECHANISMS)
def test_the_contract(cell_with, name):
    policy = build_policy(cell_with(MECHANISMS[name]), PLAIN_INTERFACE)
    memory, m = policy.memory, policy.memory.tokens
    state = memory.init_state(3)
    assert memory.read(state).tokens.shape == (3, m, 96)
    written = memory.write(state, Taps(torch.randn(3, m, 96)))
    assert {k: tuple(v.shape[1:]) for k, v in written.items()} == memory.state_spec()
    assert memory.cost()["tokens"] == m and memory.cost()["parameters"] == m * 96
    copied = memory.load(export(written))
    assert all(torch.equal(copied[k], written[k]) and not copied[k].requires_grad for k in written)
    if m:
        with refused("memory state"):
            memory.load({"tokens": torch.zeros(3, m + 1, 96)})


@pytest.mark.parametrize("name", ["tokens", "ema"])
def test_reset_is_exact_and_per_slot(cell_with, name):
    policy = build_policy(cell_with(MECHANISMS[name]), PLAIN_INTERFACE)
    written = policy.memory.write(policy.memory.init_state(3), Taps(torch.randn(3, 4, 96)))
    after = policy.memory.reset(written, torch.tensor([False, True, False]))["tokens"]
    assert torch.equal(after[1], policy.memory.initial)
    assert torch.equal(after[[0, 2]], written["tokens"][[0, 2]])


def test_initial_memory_gets_gradient_exactly_when_something_was_reset(cell_with):
    policy = build_policy(cell_with(), PLAIN_INTERFACE)
    loop = Recurrence(policy, 2)
    loop.state = detach(policy.memory.write(policy.memory.init_state(2), Taps(torch.randn(2, 4, 96))))
    for is_first, expected in ((LATER, False), (FIRST, True)):
        policy.zero_grad()
        output, _ = loop.tick(random_frames(policy, 2), is_first, moment())
        output.actions.sum().backward()
        grad = policy.memory.initial.grad
        assert (grad is not None and bool(grad.abs().sum() > 0)) == expected
        loop.truncate()


def test_the_read_back_is_the_final_hidden_state_at_the_memory_rows(cell_with):
    """After the closing norm, verbatim (spec 2.2)."""
    policy = build_policy(cell_with(), PLAIN_INTERFACE)
    outputs, _ = run(policy, 2, lambda t: torch.full((2,), t == 0))
    (first, _), (_, read_next) = outputs
    assert torch.equal(first.memory, read_next)
    scale = first.memory.square().mean().sqrt()
    assert 0.5 < scale < 2, "after RMSNorm with weight 1 the scale is of order 1"


def test_dummy_is_tokens_reset_at_every_tick_bit_for_bit(cell_with):
    """Outputs and gradients."""
    always = lambda t: torch.ones(2, dtype=torch.bool)  # noqa: E731
    once = lambda t: torch.full((2,), t == 0)  # noqa: E731
    results = []
    for change, is_first in ((dummy(4), once), (tbptt(8, 4), always)):
        policy = build_policy(cell_with(change), PLAIN_INTERFACE)
        outputs, _ = run(policy, 4, is_first)
        sum(o.actions.square().sum() for o, _ in outputs).backward()
        results.append(([o.actions for o, _ in outputs], {n: p.grad for n, p in policy.named_parameters()}))
    (actions_a, grads_a), (actions_b, grads_b) = results
    assert all(torch.equal(a, b) for a, b in zip(actions_a, actions_b, strict=True))
    for name, grad in grads_a.items():
        assert (grad is None) == (grads_b[name] is None), name
        assert grad is None or torch.equal(grad, grads_b[name]), name


def test_the_blend(cell_with):
    """M' = α·out + (1−α)·M, and α = 1 is the plain replacement."""
    out, before = torch.randn(2, 4, 96), {"tokens": torch.randn(2, 4, 96)}
    for alpha in (0.1, 0.7):
        memory = build_policy(cell_with({"memory.alpha": alpha}), PLAIN_INTERFACE).memory
        torch.testing.assert_close(
            memory.write(before, Taps(out))["tokens"], alpha * out + (1 - alpha) * before["tokens"]
        )
    memory = build_policy(cell_with({"memory.alpha": 1.0}), PLAIN_INTERFACE).memory
    assert torch.equal(memory.write(before, Taps(out))["tokens"], out)


def test_alpha_one_with_k_one_is_tbptt_one(cell_with):
    assert canonical(cell_with(ema(1.0, 4))) == canonical(cell_with(tbptt(1, 4)))


def test_a_learned_gate_starts_as_a_blend_of_one_half_and_learns(cell_with, store):
    """M' = g·out + (1−g)·M for each token; every other parameter stays, and α is unused."""
    gated, plain = cell_with({"memory.gate": "learned"}), cell_with({"memory.alpha": 0.5})
    memory, blend = (build_policy(cell, PLAIN_INTERFACE).memory for cell in (gated, plain))
    out, before = torch.randn(2, 4, 96), {"tokens": torch.randn(2, 4, 96)}
    assert torch.equal(memory.write(before, Taps(out))["tokens"], blend.write(before, Taps(out))["tokens"])
    assert torch.equal(memory.initial, blend.initial)
    with torch.no_grad():
        memory.gate.weight.normal_()
    gate = torch.sigmoid(memory.gate(torch.cat([out, before["tokens"]], dim=-1)))
    assert gate.shape == (2, 4, 1) and gate.std() > 0.1
    torch.testing.assert_close(
        memory.write(before, Taps(out))["tokens"], before["tokens"] + gate * (out - before["tokens"])
    )
    trainer = Trainer(gated, store)
    trainer.step(), trainer.step()
    assert trainer.policy.memory.gate.weight.abs().max() > 0, "the gate learns"
    assert canonical(gated) == canonical(cell_with({"memory.gate": "learned", "memory.alpha": 0.3}))
    assert content_hash(canonical(gated)) != content_hash(canonical(cell_with()))
    unused = {"memory.kind": "dummy", "memory.gate": "learned"}
    assert canonical(cell_with(unused)) == canonical(cell_with(dummy(4)))


def test_a_gate_at_its_default_stays_out_of_the_identity(cell_with):
    assert set(identity(cell_with().memory)) == {"kind", "m", "alpha", "init_std"}
    assert identity(cell_with({"memory.gate": "learned"}).memory)["gate"] == "learned"


def test_a_gate_is_drawn_beside_a_given_memory(cell_with):
    """A checkpoint without a gate gives the initial tokens; drawing the gate must not draw them again."""
    memory = build_policy(cell_with({"memory.gate": "learned"}), PLAIN_INTERFACE)
    with torch.no_grad():
        memory.memory.initial.fill_(7.0)
        memory.memory.gate.weight.fill_(7.0)
    initialise(memory, 0, only={"memory.gate.weight", "memory.gate.bias"})
    assert torch.equal(memory.memory.initial, torch.full((4, 96), 7.0)) and memory.memory.gate.weight.abs().max() == 0


def test_slots_do_not_touch_each_other(cell_with):
    """Another observation, and a reset, in slot 1 change nothing in slot 0, bit for bit."""
    policy = build_policy(cell_with(), PLAIN_INTERFACE)
    loop_a, loop_b = Recurrence(policy, 2), Recurrence(policy, 2)
    for t in range(4):
        one, two = random_frames(policy, 2, seed=t), random_frames(policy, 2, seed=100 + t)
        two.prefix[0], two.text[0] = one.prefix[0], one.text[0]
        first = torch.full((2,), t == 0)
        out_a, _ = loop_a.tick(one, first, moment(tick=t))
        out_b, _ = loop_b.tick(two, first | torch.tensor([False, t == 2]), moment(tick=t))
        assert torch.equal(out_a.actions[0], out_b.actions[0])
        assert not torch.equal(out_a.actions[1], out_b.actions[1])
    assert torch.equal(loop_a.state["tokens"][0], loop_b.state["tokens"][0])


def test_an_inactive_slot_keeps_its_memory(cell_with):
    policy = build_policy(cell_with(), PLAIN_INTERFACE)
    loop = Recurrence(policy, 2)
    loop.tick(random_frames(policy, 2), FIRST, moment())
    before = loop.state["tokens"]
    loop.tick(random_frames(policy, 2, seed=1), LATER, moment(tick=1), torch.tensor([True, False]))
    assert torch.equal(loop.state["tokens"][1], before[1])
    assert not torch.equal(loop.state["tokens"][0], before[0])
