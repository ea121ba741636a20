"""The mechanism `bank`: its factors bite, an unread bank is no memory, and interventions on times and on the read."""

from dataclasses import replace

import pytest
import torch

from helpers.policies import PLAIN_INTERFACE, random_frames, with_output
from muvla.checkpoints.build import build_policy
from muvla.config import MemoryConfig, canonical, no_memory, tbptt
from muvla.config.serialization import content_hash
from muvla.envs.phases import Phase
from muvla.errors import MuvlaError
from muvla.evaluation.checks import require_tokens
from muvla.interventions import parse_intervention
from muvla.interventions.donors.bank import DonorBank
from muvla.interventions.donors.donor import Donor
from muvla.memory.place_config import PLACES
from muvla.recurrence import Moment, Recurrence

BANK = {"memory.kind": "bank", "memory.perceptual_width": 8, "memory.capacity": 2, "memory.place": "fuse"}
STORES = {"bank": BANK, "feature_fifo": {"memory.kind": "feature_fifo", "memory.place": "fuse", "memory.capacity": 2}}
AT_HEAD = STORES | {name: {"memory.kind": name, "memory.width": 16} for name in ("gru", "fast_weights")}
every_store = pytest.mark.parametrize("name", STORES)
TICKS = 5


@pytest.fixture
def policy_of(cell_with):
    def policy(changes):
        return with_output_seeded(build_policy(cell_with(changes), PLAIN_INTERFACE).eval())

    return policy


def with_output_seeded(policy):
    """Weights behind the zero-initialised layers: the same for every policy of one shape."""
    torch.manual_seed(7)
    return with_output(policy)


@torch.no_grad()
def played(policy, intervention=None, ticks=TICKS, steps_per_tick=1):
    """The recurrence after some ticks of two episodes, and the actions of every tick."""
    loop, actions = Recurrence(policy, 2, intervention and parse_intervention(intervention)), []
    for t in range(ticks):
        moment = Moment([t * steps_per_tick] * 2, [Phase.DELAY] * 2, ["0", "1"], [0, 1])
        output, _ = loop.tick(random_frames(policy, 2, seed=t), torch.full((2,), t == 0), moment)
        actions.append(output.actions)
    return loop, torch.stack(actions)


@pytest.mark.parametrize("place", PLACES)
@every_store
def test_a_store_without_capacity_gives_the_actions_of_no_memory(policy_of, cell_with, name, place):
    """Bit for bit, and under one identity."""
    changes = STORES[name] | {"memory.capacity": 0, "memory.place": place}
    policy, none = policy_of(changes), policy_of(no_memory())
    assert torch.equal(played(policy)[1], played(none)[1])
    assert canonical(cell_with(changes)) == canonical(cell_with(no_memory()))
    with pytest.raises(MuvlaError) as info:
        require_tokens(parse_intervention("zero"), policy)
    assert info.value.field == "intervention zero"


@pytest.mark.parametrize(
    ("changes", "first"),  # first: the tick at whose actions a difference shows
    [
        ({"memory.capacity": 3}, 3),
        ({"memory.streams": "cognitive"}, 0),
        ({"memory.streams": "perceptual"}, 0),
        ({"memory.layers": 1}, 1),
        ({"memory.heads": 4}, 1),
        ({"memory.time_code": "none"}, 2),
        ({"memory.time_code": "call"}, 2),
        ({"memory.fusion": "add"}, 1),
        ({"memory.consolidation": "fifo"}, 3),
        ({"memory.consolidation": "counted_merge"}, 4),
        ({"memory.stored": "fused"}, 2),
        ({"memory.details": "dexbotic"}, 0),
        ({"memory.place": "modulate"}, 0),
        ({"memory.perceptual_width": 16}, 0),
    ],
)
def test_every_factor_bites(policy_of, changes, first):
    """At its first tick, not before: a store that is not full yet is not consolidated, and an empty store returns the
    query up to rounding with either fusion. The code of a single entry is the same for all keys."""
    _, plain = played(policy_of(BANK), steps_per_tick=3)
    _, other = played(policy_of(BANK | changes), steps_per_tick=3)
    alike = [torch.allclose(a, b, rtol=0, atol=1e-5) for a, b in zip(plain, other, strict=True)]
    assert alike[: first + 1] == [True] * first + [False]


def test_fifo_and_merging_agree_while_no_store_is_full(policy_of):
    results = [
        played(policy_of(BANK | {"memory.capacity": TICKS, "memory.consolidation": rule}))[1]
        for rule in ("merge", "counted_merge", "fifo")
    ]
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@pytest.mark.parametrize(("code", "times"), [("step", [0, 3]), ("none", [0, 3]), ("call", [0, 1])])
def test_an_entry_has_the_time_of_its_step_or_of_its_query(policy_of, code, times):
    loop, _ = played(policy_of(BANK | {"memory.time_code": code}), ticks=2, steps_per_tick=3)
    assert all(loop.state[f"{stream}_times"].tolist() == [times] * 2 for stream in ("perceptual", "cognitive"))


def test_streams_hold_raw_or_fused_tokens(policy_of):
    """The first tick searches an empty store: raw and fused are alike. The second entry differs."""
    raw, fused = (played(policy_of(BANK | {"memory.stored": s}), ticks=2)[0].state for s in ("raw", "fused"))
    for stream in ("perceptual_entries", "cognitive_entries"):
        torch.testing.assert_close(raw[stream][:, 0], fused[stream][:, 0], rtol=1e-5, atol=1e-6)
        assert not torch.allclose(raw[stream][:, 1], fused[stream][:, 1], atol=1e-3)


# --- interventions ----------------------------------------------------------------------------------------------------


def test_shuffle_time_moves_times_alone_and_changes_the_actions(policy_of):
    policy = policy_of(BANK | {"memory.capacity": 4})
    (plain, actions), (shuffled, others) = played(policy), played(policy, "shuffle_time@3")
    for name, leaf in plain.state.items():
        assert torch.equal(leaf, shuffled.state[name]) == (not name.endswith("_times")), name
    before, after = plain.state["cognitive_times"], shuffled.state["cognitive_times"]
    assert before.tolist() == [[0, 1, 2, 4]] * 2 or before.shape == after.shape
    assert torch.equal(actions[:3], others[:3]) and not torch.equal(actions[3], others[3])
    identity, same = played(policy, "shuffle_time(identity)")
    assert torch.equal(same, actions) and torch.equal(identity.state["cognitive_times"], before)


def test_shuffle_time_leaves_no_entry_its_time(policy_of):
    policy = policy_of(BANK | {"memory.capacity": 9})
    loop, _ = played(policy, "shuffle_time/after_write@4")
    for slot in range(2):
        times = loop.state["perceptual_times"][slot, :5].tolist()
        assert sorted(times) == [0, 1, 2, 3, 4] and all(t != i for i, t in enumerate(times))
        assert times == loop.state["cognitive_times"][slot, :5].tolist(), "the streams share the order"
    assert not loop.state["perceptual_times"][:, 5:].any(), "no entry, no time"


def test_no_element_wise_intervention_touches_times_that_are_means(policy_of):
    policy = policy_of(BANK | {"memory.details": "dexbotic"})
    plain, noisy = played(policy)[0].state, played(policy, "noise_unit/after_write")[0].state
    assert plain["cognitive_times"].is_floating_point() and bool((plain["cognitive_times"] % 1 != 0).any())
    assert noisy["cognitive_times"].is_floating_point() and bool((noisy["cognitive_times"] <= TICKS).all())
    assert torch.equal(noisy["cognitive_counts"].sum(dim=1), torch.full((2,), TICKS))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        (BANK | {"memory.time_code": "none"}, "shuffle_time"),
        (STORES["feature_fifo"], "shuffle_time"),
        (tbptt(8, 4), "shuffle_time"),
        (BANK, "drop"),
        (BANK, "lesion(0)"),
        (BANK, "zero[1:3]"),
        (BANK, "transplant[0:1]"),
        (BANK | {"memory.emptied": True}, "zero"),
        (no_memory(), "skip_read"),
    ],
)
def test_an_intervention_that_the_mechanism_cannot_take_is_refused(policy_of, changes, name):
    with pytest.raises(MuvlaError) as info:
        require_tokens(parse_intervention(name), policy_of(changes))
    assert info.value.field.startswith("intervention ")


@pytest.mark.parametrize("place", ["fuse", "modulate"])
@pytest.mark.parametrize("name", AT_HEAD)
def test_skip_read_gives_the_actions_of_no_memory_and_keeps_the_store(policy_of, name, place):
    policy = policy_of(AT_HEAD[name] | {"memory.place": place})
    (plain, actions), (skipped, others) = played(policy), played(policy, "skip_read")
    assert torch.equal(others, played(policy_of(no_memory()))[1]) and not torch.equal(actions, others)
    assert all(torch.equal(leaf, skipped.state[leaf_name]) for leaf_name, leaf in plain.state.items())
    _, late = played(policy, "skip_read@3")
    assert torch.equal(late[:3], actions[:3]) and torch.equal(late[3], others[3]) and torch.equal(late[4], actions[4])


@every_store
def test_skip_read_takes_the_tokens_out_of_the_sequence(policy_of, name):
    policy = policy_of(STORES[name] | {"memory.place": "context"})
    loop, actions = played(policy, "skip_read@2..")
    assert loop.read.present.shape == (2, 4) and not loop.read.present.any()
    assert not torch.equal(actions[2], played(policy)[1][2])


def test_skip_read_of_tokens_is_drop(policy_of):
    policy = policy_of(tbptt(8, 4))
    (skipped, actions), (dropped, others) = (played(policy, name) for name in ("skip_read", "drop"))
    assert torch.equal(actions, others) and torch.equal(skipped.state["tokens"], dropped.state["tokens"])


@pytest.mark.parametrize("other", ["another capacity", "another mechanism"])
@every_store
def test_donors_of_another_store_are_refused(policy_of, name, other):
    changes = STORES[name] | {"memory.capacity": 3} if other == "another capacity" else tbptt(8, 4)
    policy = policy_of(STORES[name])
    state = {leaf: value[0] for leaf, value in policy_of(changes).memory.init_state(1).items()}
    intervention = parse_intervention("transplant")
    bank = DonorBank((Donor(0, 1, (0, 1, 1), {1: state}),), intervention)
    with pytest.raises(MuvlaError) as info:
        bank.require_spec(policy.memory.state_spec())
    assert info.value.field == "intervention transplant, donors"
    fitting = {leaf: value[0] for leaf, value in policy.memory.init_state(1).items()}
    replace(bank, donors=(Donor(0, 1, (0, 1, 1), {1: fitting}),)).require_spec(policy.memory.state_spec())


@every_store
def test_a_checkpoint_of_another_capacity_is_refused(policy_of, name):
    saved, _ = played(policy_of(STORES[name] | {"memory.capacity": 3}))
    with pytest.raises(MuvlaError) as info:
        Recurrence(policy_of(STORES[name]), 2).load(saved.export())
    assert info.value.field == "memory state"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"kind": "bank", "capacity": -1}, "memory.capacity"),
        ({"kind": "feature_fifo", "capacity": -1}, "memory.capacity"),
        ({"kind": "bank", "capacity": 2.0}, "memory.capacity"),
        ({"kind": "bank", "capacity": 10**9}, "memory.capacity"),
        ({"kind": "bank", "perceptual_width": 10**9}, "memory.perceptual_width"),
        ({"kind": "bank", "layers": 0}, "memory.layers"),
        ({"kind": "bank", "heads": 0}, "memory.heads"),
        ({"kind": "bank", "heads": 3}, "memory.perceptual_width"),
        ({"kind": "bank", "streams": "cognitiv"}, "memory.streams"),
        ({"kind": "bank", "time_code": "frame"}, "memory.time_code"),
        ({"kind": "bank", "consolidation": "tome"}, "memory.consolidation"),
        ({"kind": "feature_fifo", "place": "contex"}, "memory.place"),
    ],
)
def test_a_value_that_a_store_does_not_have_is_refused(fields, field):
    with pytest.raises(MuvlaError) as info:
        MemoryConfig(**fields)
    assert info.value.field == field


def test_heads_that_do_not_divide_the_models_width_are_refused(cell_with):
    with pytest.raises(MuvlaError) as info:
        cell_with(BANK | {"memory.perceptual_width": 35, "memory.heads": 5})
    assert info.value.field == "memory.heads"
    cell_with(BANK | {"memory.perceptual_width": 35, "memory.heads": 5, "memory.streams": "perceptual"})


def test_unused_fields_of_a_bank_share_one_identity(cell_with):
    def identity(**changes):
        return content_hash(canonical(cell_with(BANK | {f"memory.{name}": value for name, value in changes.items()})))

    cognitive = identity(streams="cognitive")
    assert cognitive == identity(streams="cognitive", perceptual_width=32) != identity(streams="perceptual")
    assert identity() != identity(perceptual_width=32)


@every_store
def test_detached_copies_have_blocks_of_one_tick(cell_with, name):
    """Training credits no earlier write, whatever K says; the crossing has K."""
    assert canonical(cell_with(STORES[name] | {"truncation": 4})).block_length == 1
    assert canonical(cell_with(STORES[name] | {"truncation": 4, "memory.detached": False})).block_length == 4


@pytest.mark.parametrize("place", PLACES)
@every_store
def test_the_cost_counts_what_is_carried(policy_of, name, place):
    cost = policy_of(STORES[name] | {"memory.place": place}).memory.cost()
    width, patches = 96, 8
    numbers = {
        "bank": 2 * (patches * 8 + 2) + 2 * (width + 2) + 1,
        "feature_fifo": 2 * width + 1,
    }
    assert cost["state"] == numbers[name] and cost["tokens"] == (4 if place == "context" else 0)
    assert cost["flops"] > 0 and cost["parameters"] > 0
