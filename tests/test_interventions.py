"""Every intervention bites, is keyed on its own, and works slot by slot."""

import pytest
import torch

from helpers.policies import PLAIN_INTERFACE, random_frames, tokens_read
from muvla.checkpoints.build import build_policy
from muvla.config import dummy, no_memory, tbptt
from muvla.envs.phases import Phase
from muvla.errors import MuvlaError
from muvla.interventions import EXAMPLES, get_intervention_kind, parse_intervention, sham_of
from muvla.interventions.base import Intervention
from muvla.interventions.context import Context
from muvla.recurrence import Moment, Recurrence
from muvla.training.trainer import Trainer

NAMES = sorted(EXAMPLES.values())
# On MEMORY tokens, which have no times.
PARSED = {name: parse_intervention(name) for name in NAMES}
ALONE = [name for name, i in PARSED.items() if i.donor is None and not i.on_times and not i.on_perception]


@pytest.fixture(scope="module")
def policy(cell_with):
    return build_policy(cell_with(), PLAIN_INTERFACE).eval()


def test_zero(policy):
    assert not tokens_read(policy, parse_intervention("zero"))[0].any()


def test_noise_unit_is_standard_normal_and_new_at_every_tick(policy):
    read, _ = tokens_read(policy, parse_intervention("noise_unit"), seeds=tuple(range(8)))
    assert read.mean().abs() < 0.02 and abs(read.std() - 1) < 0.02
    assert not torch.equal(read[0], read[1]) and not torch.equal(read[0, 0], read[0, 1])


def test_noise_matched_keeps_the_moments_and_nothing_else(policy):
    noisy, _ = tokens_read(policy, parse_intervention("noise_matched"))
    plain, _ = tokens_read(policy, None)
    for t in (0, 1):  # at t = 0 the memory is the initial one; at t = 1 what the disturbed first tick wrote
        assert noisy[t].std() == pytest.approx(plain[t].std().item(), rel=0.15)
        assert not torch.allclose(noisy[t], plain[t])
    assert noisy[0].std() < 0.1 < noisy[1].std(), "the initial memory has scale 0.02, a written one is of order 1"


def test_freeze_first_locks_the_output_of_the_first_step(policy):
    frozen, _ = tokens_read(policy, parse_intervention("freeze_first"))
    plain, _ = tokens_read(policy, None)
    assert torch.equal(frozen[:2], plain[:2]), "M₀ is read at t = 0 and M₁ at t = 1, as without"
    assert torch.equal(frozen[1], frozen[2]) and torch.equal(frozen[1], frozen[3])
    assert not torch.equal(plain[1], plain[2])


@pytest.mark.parametrize("name", ALONE)
def test_it_bites_on_the_actions(policy, name):
    _, actions = tokens_read(policy, parse_intervention(name))
    _, plain = tokens_read(policy, None)
    assert (actions[-1] - plain[-1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ALONE)
def test_on_dummy(cell_with, name):
    """It measures the out-of-distribution artefact of the intervention itself; freezing what never moves is nothing."""
    policy = build_policy(cell_with(dummy(4)), PLAIN_INTERFACE).eval()
    _, actions = tokens_read(policy, parse_intervention(name))
    _, plain = tokens_read(policy, None)
    nothing = {"empty", "freeze_first", "freeze", "stale(2)"}
    assert torch.equal(actions, plain) == (name in nothing)


@pytest.mark.parametrize("site", ["before_read", "read", "after_write"])
def test_every_site_reaches_what_dummy_reads(cell_with, site):
    """What is written there is read at the next tick, although dummy itself carries nothing from tick to tick."""
    zero = Intervention("z", site, lambda state, _: {k: torch.zeros_like(v) for k, v in state.items()}, "freezes")
    policy = build_policy(cell_with(dummy(4)), PLAIN_INTERFACE).eval()
    read, _ = tokens_read(policy, zero)
    assert not read[1:].any() and bool(read[0].any()) == (site == "after_write")


def test_a_donor_reaches_its_slot_alone(policy):
    """A transplant: slot 1 reads what slot 0's episode wrote, at the tick at which a donor is given."""
    transplant = Intervention("t", "before_read", lambda state, context: context.donor or state, "keeps")
    plain, _ = tokens_read(policy, None, seeds=(0, 1))
    loop = Recurrence(policy, 2, transplant)
    with torch.no_grad():
        for t in range(3):
            donor = [None, {"tokens": plain[2, 0]}] if t == 2 else None
            moment = Moment([t] * 2, [Phase.DELAY] * 2, ["0", "1"], [0, 1], donor)
            _, read = loop.tick(random_frames(policy, 2, seed=t), torch.full((2,), t == 0), moment)
    assert torch.equal(read[1], plain[2, 0]) and torch.equal(read[0], plain[2, 0])
    assert not torch.equal(plain[2, 1], plain[2, 0])


@pytest.mark.parametrize("name", NAMES)
def test_without_memory_there_is_nothing_to_intervene_on(cell_with, name):
    policy = build_policy(cell_with(no_memory()), PLAIN_INTERFACE).eval()
    assert torch.equal(tokens_read(policy, parse_intervention(name))[1], tokens_read(policy, None)[1])


@pytest.mark.parametrize("name", ALONE)
def test_batched_equals_single(policy, name):
    """A slot under an intervention is what the same episode alone would be, and no slot's index matters."""
    together, _ = tokens_read(policy, parse_intervention(name), seeds=(5, 6, 7), frame_seeds=(5, 6, 7))
    swapped, _ = tokens_read(policy, parse_intervention(name), seeds=(7, 5, 6), frame_seeds=(7, 5, 6))
    assert torch.equal(together, swapped[:, [1, 2, 0]])
    alone, _ = tokens_read(policy, parse_intervention(name), seeds=(6,), frame_seeds=(6,))
    torch.testing.assert_close(together[:, 1:2], alone, rtol=1e-4, atol=1e-5)


def context(seed=3, tick=2):
    return Context(tick, Phase.DELAY, "key", seed, [])


def test_draws_are_keyed_by_seed_tick_and_intervention_alone():
    """So adding one never changes another."""
    state = {"tokens": torch.zeros(4, 8) + torch.linspace(-1, 1, 8)}
    unit, matched = (get_intervention_kind(name).function for name in ("noise_unit", "noise_matched"))
    first = unit(state, context())["tokens"]
    matched(state, context())
    torch.randn(100)
    assert torch.equal(unit(state, context())["tokens"], first)
    assert not torch.equal(unit(state, context(seed=4))["tokens"], first)
    assert not torch.equal(unit(state, context(tick=3))["tokens"], first)
    assert not torch.allclose(matched(state, context())["tokens"], first)


def test_identity_changes_nothing_at_any_site(policy):
    plain, actions = tokens_read(policy, None)
    for site in ("before_read", "read", "after_write"):
        same = Intervention("same", site, lambda state, context: state, "moves")
        again, actions_again = tokens_read(policy, same)
        assert torch.equal(plain, again) and torch.equal(actions, actions_again), site


def test_the_three_sites_are_three_places(policy):
    """Zero at each: before the read it also enters the blend, at the read it does not, after the write it is read
    next."""
    zero = lambda state, context: {k: torch.zeros_like(v) for k, v in state.items()}  # noqa: E731
    by_site = {
        s: tokens_read(policy, Intervention("z", s, zero, "freezes"))[0] for s in ("before_read", "read", "after_write")
    }
    assert not by_site["before_read"].any() and not by_site["read"].any()
    assert by_site["after_write"][0].any() and not by_site["after_write"][1:].any()


def test_before_read_and_read_differ_in_what_the_blend_sees(cell_with):
    policy = build_policy(cell_with({"memory.alpha": 0.3}), PLAIN_INTERFACE).eval()
    zero = lambda state, context: {k: torch.zeros_like(v) for k, v in state.items()}  # noqa: E731
    states = []
    for site in ("before_read", "read"):
        loop = Recurrence(policy, 2, Intervention("z", site, zero, "freezes"))
        loop.state = {"tokens": torch.ones(2, 4, 96)}
        loop.tick(
            random_frames(policy, 2),
            torch.zeros(2, dtype=torch.bool),
            Moment([1, 1], [Phase.DELAY] * 2, ["a", "b"], [0, 1]),
        )
        states.append(loop.state["tokens"])
    torch.testing.assert_close(states[1] - states[0], torch.full((2, 4, 96), 0.7), rtol=1e-4, atol=1e-5)


def test_history_starts_anew_with_every_episode(policy):
    lengths = []

    def record(state, context):
        lengths.append(len(context.history))
        return state

    loop = Recurrence(policy, 1, Intervention("r", "before_read", record, "moves"))
    for t, first in enumerate((True, False, False, True, False)):
        loop.tick(random_frames(policy, 1), torch.tensor([first]), Moment([t], [Phase.CUE], ["k"], [0]))
    assert lengths == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("name", ALONE)
def test_usable_in_training(store, cell_with, name):
    cell = cell_with({**tbptt(8, 4), "intervention": name})
    trainer = Trainer(cell, store, parse_intervention(name))
    losses = [trainer.step()[0] for _ in range(2)]
    plain = Trainer(cell_with(), store)
    assert losses != [plain.step()[0] for _ in range(2)]


def test_training_needs_the_declared_intervention(store, cell_with):
    for cell, given in ((cell_with({"intervention": "zero"}), None), (cell_with(), parse_intervention("zero"))):
        with pytest.raises(MuvlaError) as info:
            Trainer(cell, store, given)
        assert info.value.field == "intervention"


def test_unknown_intervention():
    with pytest.raises(MuvlaError) as info:
        parse_intervention("freez_first")
    assert info.value.field == "intervention" and "freeze_first" in info.value.expected
    assert parse_intervention(None) is None and parse_intervention("none") is None


def test_shams_have_the_rest_of_the_name():
    names = ["transplant@3", "transplant_same@3", "transplant_self", "direction(2)", "orthogonal(2)", "orthogonal(4)"]
    assert sham_of("transplant@3", names) == ["transplant_same@3"]
    assert sham_of("direction(2)", names) == ["orthogonal(2)"]
    assert sham_of("zero", names) == sham_of("none", names) == []


@pytest.mark.parametrize("name", [n for n in EXAMPLES if get_intervention_kind(n).identity is not None])
def test_the_identity_changes_nothing(policy, name):
    spec = get_intervention_kind(name)
    if spec.donor is not None:
        pytest.skip("needs donors: tests/test_donors.py")
    shown = str(spec.identity)
    assert torch.equal(tokens_read(policy, parse_intervention(f"{name}({shown})"))[0], tokens_read(policy, None)[0])
