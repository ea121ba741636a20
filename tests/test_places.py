"""Places: where retrieved content acts, and what every mechanism with a place shares."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from helpers.policies import PLAIN_INTERFACE, random_frames, with_output
from muvla.checkpoints.build import build_policy
from muvla.config import canonical, dummy, no_memory
from muvla.config.serialization import content_hash
from muvla.envs.phases import Phase
from muvla.errors import MuvlaError
from muvla.memory.base import float_leaves
from muvla.memory.contract import Dimensions, Retrieved
from muvla.memory.place import build_place
from muvla.memory.place_config import PLACES, PlaceConfig
from muvla.memory.registry import MECHANISMS
from muvla.models.leak_test import leak_test
from muvla.recurrence import Moment, Recurrence

WITH_PLACE = [name for name in MECHANISMS.members if issubclass(MECHANISMS.load(name).Config, PlaceConfig)]
COMBINATIONS = [
    (name, place) for name in WITH_PLACE for place in MECHANISMS.load(name).Config.places if place in PLACES
]
every = pytest.mark.parametrize(("name", "place"), COMBINATIONS)
FRAMES = (0, 1)  # slots


@pytest.fixture
def policy_of(cell_with):
    def policy(name, place, **fields):
        changes = {"memory.kind": name, "memory.place": place} | {f"memory.{k}": v for k, v in fields.items()}
        return build_policy(cell_with(changes), PLAIN_INTERFACE).eval()

    return policy


@torch.no_grad()
def played(policy, ticks=3, first=0):
    """Recurrence and actions after some ticks, from tick `first` of the same episodes."""
    loop, actions = Recurrence(policy, len(FRAMES)), []
    for t in range(first, first + ticks):
        moment = Moment([t] * 2, [Phase.DELAY] * 2, ["0", "1"], [0, 1])
        output, _ = loop.tick(random_frames(policy, 2, seed=t), torch.full((2,), t == first), moment)
        actions.append(output.actions)
    return loop, torch.stack(actions)


@dataclass(frozen=True)
class AtHeadConfig(PlaceConfig):
    """A mechanism without the place `context`."""

    places: ClassVar[tuple[str, ...]] = ("fuse", "modulate")
    kind: str = "at_head"
    place: str = "fuse"


@pytest.mark.parametrize(
    ("config", "fields", "field"),
    [
        (MECHANISMS.load("gru").Config, {"place": "fused"}, "memory.place"),
        (AtHeadConfig, {"place": "context"}, "memory.place"),
        (MECHANISMS.load("gru").Config, {"m": 0}, "memory.m"),
        (MECHANISMS.load("gru").Config, {"place": "fuse", "m": -1}, "memory.m"),
        (MECHANISMS.load("gru").Config, {"width": 0}, "memory.width"),
        (MECHANISMS.load("gru").Config, {"width": 1.5}, "memory.width"),
        (MECHANISMS.load("frame_stack").Config, {"k": 2.5}, "memory.k"),
        (MECHANISMS.load("fast_weights").Config, {"heads": 3, "width": 16}, "memory.width"),
        (MECHANISMS.load("fast_weights").Config, {"heads": 0}, "memory.heads"),
        (MECHANISMS.load("fast_weights").Config, {"decay": 1.5}, "memory.decay"),
    ],
)
def test_a_value_that_a_mechanism_does_not_have_is_refused(config, fields, field):
    with pytest.raises(MuvlaError) as info:
        config(**fields)
    assert info.value.field == field


@every
def test_unused_fields_share_one_identity(cell_with, name, place):
    def identity(m, K):
        changes = {"memory.kind": name, "memory.place": place, "memory.m": m, "truncation": K}
        return content_hash(canonical(cell_with(changes)))

    assert (identity(4, 8) == identity(2, 8)) == (place != "context"), "m counts in the context alone"
    emptied = {"memory.kind": name, "memory.place": place, "memory.emptied": True}
    ids = {content_hash(canonical(cell_with(emptied | {"truncation": K}))) for K in (1, 8)}
    assert len(ids) == 1 and identity(4, 8) not in ids, "an emptied twin has no K"


def test_the_reserve_covers_the_tokens_of_the_context_alone(cell_with):
    cell_with({"memory.kind": "gru", "memory.place": "fuse", "memory.m": 9})
    with pytest.raises(MuvlaError) as info:
        cell_with({"memory.kind": "gru", "memory.m": 9})
    assert info.value.field == "model.reserve"


@every
def test_the_head_starts_as_without_memory(policy_of, cell_with, name, place):
    """Bit for bit, with every parameter that both have; `context` starts with m tokens more."""
    policy = policy_of(name, place, m=4)
    other = build_policy(cell_with(no_memory() if place != "context" else dummy(4)), PLAIN_INTERFACE).eval()
    ours = dict(policy.named_parameters())
    shared = {n for n in dict(other.named_parameters()) if not n.startswith("memory.")}
    assert all(torch.equal(ours[n], p) for n, p in other.named_parameters() if n in shared)
    (_, actions), (_, without) = played(policy), played(other)
    assert torch.equal(actions, without) == (place != "context")
    assert policy.layout().memory == other.layout().memory == policy.memory.tokens
    with_output(policy)
    assert not torch.equal(played(policy)[1], without), "the place acts"


@every
def test_the_leak_test_is_zero_in_every_place(policy_of, name, place):
    """On a store that has been written, and on the emptied twin."""
    for emptied in (False, True):
        policy = with_output(policy_of(name, place, emptied=emptied))
        loop, _ = played(policy)
        assert leak_test(policy, random_frames(policy, 2), loop.state) == 0.0
        full = with_output(policy_of(name, place, emptied=emptied))
        full.config = replace(full.config, guard="full")
        assert leak_test(full, random_frames(full, 2), loop.state) > 0, "the test sees a leak"


@every
def test_the_emptied_twin_has_the_weights_and_no_past(policy_of, name, place):
    policy, twin = policy_of(name, place), policy_of(name, place, emptied=True)
    for (name_a, a), (name_b, b) in zip(policy.named_parameters(), twin.named_parameters(), strict=True):
        assert name_a == name_b and torch.equal(a, b)
    cost, of_twin = policy.memory.cost(), twin.memory.cost()
    assert all(cost[n] == of_twin[n] for n in ("parameters", "tokens", "flops"))
    carried = sum(leaf.nbytes for leaf in policy.memory.init_state(1).values())
    assert of_twin["bytes"] == 0 < cost["bytes"] == carried
    with_output(policy), with_output(twin)
    last = [played(each, 1, first=2)[1][-1] for each in (policy, twin)]  # the episode's first tick
    after = [played(each)[1][-1] for each in (policy, twin)]  # two ticks later
    assert torch.equal(last[1], after[1]) and not torch.allclose(last[0], after[0])
    loop, _ = played(twin)
    assert all(torch.equal(loop.state[leaf], value) for leaf, value in twin.memory.init_state(2).items())
    twin.zero_grad()
    loop = Recurrence(twin, 2)
    output, _ = loop.tick(
        random_frames(twin, 2), torch.tensor([True, True]), Moment([0, 0], [Phase.CUE] * 2, ["0", "1"], [0, 1])
    )
    output.actions.square().sum().backward()
    trained = {n for n, p in twin.memory.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)}
    assert any(not n.startswith("place.") for n in trained), "search and write are trained without a past"


@pytest.mark.parametrize("place", PLACES)
def test_parameters_that_two_mechanisms_share_are_equal(policy_of, place):
    gru, fast = policy_of("gru", place, width=16, m=8), policy_of("fast_weights", place, width=16, m=4)
    ours, theirs = dict(gru.named_parameters()), dict(fast.named_parameters())
    both = {n for n in ours.keys() & theirs.keys() if ours[n].shape[1:] == theirs[n].shape[1:]}
    assert any(n.startswith("memory.place.") for n in both)
    for n in both:
        rows = min(len(ours[n]), len(theirs[n]))
        assert torch.equal(ours[n][:rows], theirs[n][:rows]), n


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("entries", [1, 5])
def test_absent_entries_change_nothing(place, entries):
    """No other number of an absent entry counts; with no entry present, the states stay and the tokens are learned."""
    sizes = Dimensions(width=12, chunk=2, action=3)
    module = build_place(PlaceConfig("none", place=place, m=3), entries, 8, sizes)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    content, states, summary = torch.randn(2, entries, 8), torch.randn(2, 6, 12), torch.randn(2, 12)
    present = torch.zeros(2, entries, dtype=torch.bool)
    present[1, entries - 1 :] = True
    results = []
    for other in (content, torch.where(present[..., None], content, torch.tensor(1e3))):
        retrieved = Retrieved(other, present=present)
        results.append((module.tokens(retrieved, summary), module.inject(retrieved, states)))
    (tokens, injected), (tokens_again, injected_again) = results
    assert torch.equal(tokens, tokens_again) and torch.equal(injected, injected_again)
    assert torch.equal(injected[0], states[0]) and torch.equal(injected[1], states[1]) == (place == "context")
    if place == "context":
        assert torch.equal(tokens[0], module.initial) and not torch.allclose(tokens[1], module.initial)
    else:
        assert tokens.shape == (2, 0, 12)
    assert module.flops() > 0


@every
def test_it_computes_in_bfloat16(cell_with, name, place):
    changes = {"memory.kind": name, "memory.place": place, "model.precision": "bfloat16"}
    policy = with_output(build_policy(cell_with(changes), PLAIN_INTERFACE).eval())
    loop, actions = played(policy, 2)
    assert bool(actions.isfinite().all()) and all(
        leaf.dtype == torch.float32 for leaf in float_leaves(loop.state).values()
    )
