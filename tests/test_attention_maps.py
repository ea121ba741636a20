"""Attention maps: what they are reduced from is what the training backend computes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.policies import ON_CPU, PADDED_INTERFACE, PLAIN_INTERFACE, random_frames
from muvla.checkpoints.build import build_policy
from muvla.models.guard import BARRED_ROWS, may_attend
from muvla.models.policy import Policy
from muvla.models.sequence import Segment
from muvla.probes.attention_maps import ACTION_READ, Maps, observe_attention, probabilities

GUARDS = sorted(BARRED_ROWS)
BOTH = pytest.mark.parametrize("interface", [PADDED_INTERFACE, PLAIN_INTERFACE], ids=["mixed prompts", "one length"])


def drawn_memory(policy: Policy, slots: int) -> torch.Tensor:
    return torch.randn(slots, policy.memory.tokens, 96, generator=torch.Generator().manual_seed(1))


def stepped(policy: Policy, watch, slots: int = 4):
    """A tick of random frames and a random memory, watched."""
    encoded = random_frames(policy, slots)
    with torch.no_grad(), observe_attention(policy, watch):
        return policy.step(encoded, drawn_memory(policy, slots))


@pytest.fixture(scope="module")
def policy_with(cell_with):
    """`policy_with(interface, guard=…)` → one policy per interface, under other fields of its model."""
    built = {interface: build_policy(cell_with(), interface) for interface in (PADDED_INTERFACE, PLAIN_INTERFACE)}
    config = built[PLAIN_INTERFACE].config

    def changed(interface, **fields):
        built[interface].config = replace(config, **fields)
        return built[interface]

    return changed


@BOTH
@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("backend", ON_CPU)
def test_probabilities_times_values_is_what_the_backend_put_out(policy_with, backend, guard, interface):
    """In every layer, of the very tensors that training's kernel gets."""
    require_same_output(policy_with(interface, attention=backend, guard=guard), guard, 1e-5)


def test_the_same_in_half_precision(policy_with):
    """To its rounding; the probabilities are not rounded."""
    require_same_output(policy_with(PADDED_INTERFACE, precision="bfloat16"), "context", 2e-2)


def require_same_output(policy, guard, rounding):
    layers = []

    def watch(layer, q, k, v, plan, scale, out):
        layers.append(layer)
        found = probabilities(q, k, plan.segments, plan.guard, scale)
        segments = plan.segments.expand(len(q), -1)
        allowed = may_attend(segments[:, :, None], segments[:, None, :], guard)[:, None].expand_as(found)
        assert (found[~allowed] == 0).all() and (found[allowed] > 0).all()
        torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:-1]), rtol=0, atol=1e-6)
        told = (segments != Segment.PAD)[..., None, None].expand_as(out)
        ours = (found @ v.float()).transpose(1, 2)
        torch.testing.assert_close(ours[told], out.float()[told], rtol=rounding, atol=rounding)
        assert out.dtype == v.dtype == q.dtype

    stepped(policy, watch)
    assert layers == [0, 1]


def test_grouped_key_heads_are_shared():
    """Llama's larger models have fewer heads of keys than of queries."""
    q, k = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8)
    segments = torch.full((1, 5), int(Segment.TEXT))
    shared = probabilities(q, k.repeat_interleave(2, dim=1), segments, "full", 0.3)
    assert torch.equal(probabilities(q, k, segments, "full", 0.3), shared)


def test_watching_changes_nothing_and_ends(policy_with):
    policy, seen = policy_with(PADDED_INTERFACE), []
    watched = stepped(policy, lambda *told: seen.append(told))
    with pytest.raises(ZeroDivisionError):
        stepped(policy, lambda *told: 1 / 0)
    plain = policy.step(random_frames(policy, 4), drawn_memory(policy, 4))
    assert len(seen) == 2
    assert torch.equal(watched.actions, plain.actions) and torch.equal(watched.memory, plain.memory)


@BOTH
@pytest.mark.parametrize("guard", GUARDS)
def test_the_reductions_are_those_of_the_whole_maps(policy_with, guard, interface):
    """Mass, maps and rollout of each slot, from all layers' probabilities at once; per head, and averaged."""
    policy, all_layers = policy_with(interface, guard=guard), []

    def keep(layer, q, k, v, plan, scale, out):
        all_layers.append((probabilities(q, k, plan.segments, guard, scale), plan))

    stepped(policy, keep)
    maps, by_head = Maps(policy, 3), Maps(policy, 3, by_head=True)
    stepped(policy, maps)
    stepped(policy, by_head)
    plan = all_layers[0][1]
    for slot in range(3):
        whole = torch.stack([p[slot] for p, _ in all_layers]).double().numpy()  # (L, N, S, S)
        segments = plan.segments.expand(4, -1)[slot].numpy()
        attention, heads = maps.of(slot), by_head.of(slot)
        assert attention.rows[:-1] == attention.keys and attention.rows[-1] == ACTION_READ
        assert "PAD" not in attention.keys and {"MEMORY", "VISION", "ACTION", "STOP"} <= set(attention.keys)
        members = {name: segments == Segment[name] for name in attention.keys}
        read = np.zeros(len(segments), bool)
        read[plan.layout.action_read] = True
        for r, row in enumerate(attention.rows):
            own = whole[:, :, members.get(row, read)].mean(axis=2)  # (L, N, S)
            for c, key in enumerate(attention.keys):
                expected = own[..., members[key]].sum(axis=-1)
                np.testing.assert_allclose(heads.mass[:, :, r, c], expected, atol=1e-6)
                np.testing.assert_allclose(attention.mass[:, r, c], expected.mean(axis=1), atol=1e-6)
        np.testing.assert_allclose(attention.mass.sum(axis=-1), 1, atol=1e-6)
        np.testing.assert_allclose(attention.uniform.sum(axis=-1), 1, atol=1e-6)
        identity = np.eye(len(segments))
        rolled = identity
        for layer in whole.mean(axis=1):
            mixed = 0.5 * layer + 0.5 * identity
            rolled = (mixed / mixed.sum(axis=1, keepdims=True)) @ rolled
        for row, rows in (("MEMORY", members["MEMORY"]), (ACTION_READ, read)):
            own = whole[:, :, rows].mean(axis=2)[..., members["VISION"]].reshape(2, 4, 2, 4)
            np.testing.assert_allclose(heads.maps[row], own, atol=1e-6)
            np.testing.assert_allclose(attention.maps[row], own.mean(axis=1), atol=1e-6)
            np.testing.assert_allclose(heads.patches(row), own.mean(axis=(0, 1)), atol=1e-6)
            expected = rolled[rows].mean(axis=0)[members["VISION"]].reshape(2, 4)
            np.testing.assert_allclose(attention.rollout[row], expected, atol=1e-6)


def test_a_guard_bars_and_uniform_tells_what_is_left(policy_with):
    """Under `context` nothing of the memory's attention can fall on ACTION; 4 of the 20 tokens that it may see are its
    own."""
    found = {}
    for guard in ("full", "context"):
        maps = Maps(policy := policy_with(PLAIN_INTERFACE, guard=guard))
        stepped(policy, maps)
        found[guard] = maps.of(0)
    memory = found["context"].rows.index("MEMORY")
    at = found["context"].keys.index
    assert (found["context"].mass[:, memory, at("ACTION")] == 0).all()
    assert (found["full"].mass[:, memory, at("ACTION")] > 0).all()
    assert found["context"].uniform[memory, at("MEMORY")] == pytest.approx(4 / 20)


def test_planted_attention_is_found_on_its_patch(policy_with):
    """A query that is one patch's key, and at right angles to all others, lights that patch up and no other."""
    policy = policy_with(PLAIN_INTERFACE)
    maps = Maps(policy)
    patch = 1 + 4 + 2  # after BOS, the second camera's third

    def plant(layer, q, k, v, plan, scale, out):
        keys = torch.eye(plan.layout.length)[None, None].expand(1, 4, -1, -1)
        maps(layer, 100 * keys[:, :, [patch] * plan.layout.length], keys, v, plan, 1.0, out)

    stepped(policy, plant)
    lit = np.zeros((2, 4))
    lit[1, 2] = 1
    np.testing.assert_allclose(maps.of(0).patches(ACTION_READ), lit, atol=1e-6)
    # A row keeps half of what it has in each of two layers, and the patch keeps all of what it gets.
    np.testing.assert_allclose(maps.of(0).rollout["MEMORY"], 0.75 * lit, atol=1e-6)


def test_without_memory_there_is_no_memory_row(cell_with):
    maps = Maps(policy := build_policy(cell_with({"memory.kind": "none", "memory.m": 0}), PLAIN_INTERFACE))
    stepped(policy, maps)
    assert list(maps.of(0).maps) == [ACTION_READ] and "MEMORY" not in maps.of(0).keys
