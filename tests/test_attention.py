"""The guard: semantics, backends, leaks."""

import math

import pytest
import torch
from conftest import PADDED_INTERFACE, PLAIN_INTERFACE, random_frames

from muvla.configtools import replace
from muvla.errors import MuvlaError, NotAMeasurement
from muvla.models.attention import BACKENDS, BARRED_ROWS, AttentionPlan, may_attend
from muvla.models.build import build_policy
from muvla.models.policy import guard_canary
from muvla.models.sequence import Layout, Segment

GUARDS = sorted(BARRED_ROWS)


def test_the_guard_table():
    """The table of μVLA spec 3.1 for `context`, and the two other scopes, cell by cell."""
    segments = torch.tensor(list(Segment))
    for guard, barred in {
        "full": "",
        "memory_only": "MEMORY",
        "context": "BOS VISION PROPRIO MEMORY TEXT",
    }.items():
        allowed = may_attend(segments[:, None], segments[None, :], guard)
        for query in Segment:
            for key in Segment:
                expected = key != Segment.PAD and not (
                    query.name in barred.split() and key in (Segment.ACTION, Segment.STOP, Segment.TIME)
                )
                assert allowed[query, key] == expected, (guard, query.name, key.name)


def test_unknown_guard():
    with pytest.raises(MuvlaError, match="context"):
        may_attend(torch.tensor(0), torch.tensor(0), "contextual")


@pytest.mark.parametrize("guard", GUARDS)
def test_the_guard_is_the_same_in_compiled_code(guard):
    """Compiled by torch, a tensor equals no member of an enumeration: silently, nobody would be barred."""
    query, key = torch.tensor(list(Segment))[:, None], torch.tensor(list(Segment))[None, :]
    compiled = torch.compile(may_attend, backend="eager", fullgraph=True)
    assert torch.equal(compiled(query, key, guard), may_attend(query, key, guard))


def reference_attention(q, k, v, segments, guard, scale):
    """Row by row, straight from the definition."""
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for i in range(q.shape[2]):
            seen = [j for j in range(q.shape[2]) if may_attend(segments[b, i], segments[b, j], guard)]
            scores = torch.einsum("nd,njd->nj", q[b, :, i], k[b][:, seen]) * scale
            out[b, :, i] = torch.einsum("nj,njd->nd", scores.softmax(-1), v[b][:, seen])
    return out


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("backend", sorted(BACKENDS))
@pytest.mark.parametrize("trial", range(6))
def test_backends_agree_with_the_definition(guard, backend, trial):
    """Over random layouts, lengths and paddings, in float64, including grouped key heads."""
    g = torch.Generator().manual_seed(trial)
    draw = lambda low, high: int(torch.randint(low, high + 1, (1,), generator=g))  # noqa: E731
    text = draw(2, 7)
    layout = Layout(draw(1, 6), draw(0, 5), text, draw(1, 6), reserve=8, padded=trial % 2 == 0)
    lengths = torch.randint(1, text + 1, (3,), generator=g) if layout.padded else torch.full((3,), text)
    heads, groups, width = 4, (4 if trial < 3 else 2), 8
    q, k, v = (
        torch.randn(3, n, layout.length, width, generator=g, dtype=torch.float64) for n in (heads, groups, groups)
    )
    plan = AttentionPlan(layout, layout.segments(lengths), guard, backend)
    scale = 1 / math.sqrt(width)
    out = BACKENDS[backend](q, k, v, plan, scale, groups != heads)
    repeated = (x.repeat_interleave(heads // groups, dim=1) for x in (k, v))
    expected = reference_attention(q, *repeated, plan.segments, guard, scale)
    is_token = plan.segments != Segment.PAD
    torch.testing.assert_close(
        out.transpose(1, 2)[is_token], expected.transpose(1, 2)[is_token], rtol=1e-10, atol=1e-12
    )


def memory_change(cell, interface):
    """Largest change of the written memory when the ACTION embeddings are perturbed."""
    policy = build_policy(cell, interface)
    encoded = random_frames(policy, 4)
    memory = torch.randn(4, cell.memory.m, cell.model.size.width, generator=torch.Generator().manual_seed(1))
    return guard_canary(policy, encoded, memory), policy, encoded, memory


@pytest.mark.parametrize("backend", sorted(BACKENDS))
@pytest.mark.parametrize("interface", [PADDED_INTERFACE, PLAIN_INTERFACE], ids=["mixed prompts", "one length"])
def test_context_leaks_exactly_nothing(cell_with, backend, interface):
    cell = cell_with({"model.guard": "context", "model.attention": backend})
    assert memory_change(cell, interface)[0] == 0.0


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_full_leaks_and_the_canary_sees_it(cell_with, backend):
    assert memory_change(cell_with({"model.guard": "full", "model.attention": backend}), PADDED_INTERFACE)[0] > 1e-3


def test_memory_only_leaks_through_vision_and_text_but_not_directly(cell_with):
    """One layer: no path. Two layers: ACTION → VISION/TEXT → MEMORY inside one tick (spec 3.3)."""
    two = cell_with({"model.guard": "memory_only"})
    one = replace(two, {"model.size.layers": 1})
    assert memory_change(one, PADDED_INTERFACE)[0] == 0.0
    assert memory_change(two, PADDED_INTERFACE)[0] > 1e-3


def test_a_leaking_kernel_under_context_stops_everything(cell_with, monkeypatch):
    """The bug that the published code has: the guard computed from one padded length per batch (spec 3.4)."""
    policy = build_policy(cell_with({"model.attention": "dense"}), PADDED_INTERFACE)
    encoded, memory = random_frames(policy, 4), torch.randn(4, 4, 96)
    honest = Layout.segments

    def one_length_per_batch(self, text_lengths):
        shifted = honest(self, text_lengths)
        short = text_lengths < text_lengths.max()
        start = self.action_start
        shifted[short, start : start + 1] = Segment.TEXT  # the first ACTION slot of short rows classed as context
        return shifted

    monkeypatch.setattr(Layout, "segments", one_length_per_batch)
    with pytest.raises(NotAMeasurement, match="exactly 0"):
        guard_canary(policy, encoded, memory)


@pytest.mark.parametrize("guard", GUARDS)
def test_split_and_dense_give_the_same_policy(cell_with, guard):
    outputs = []
    for backend in BACKENDS:
        _, policy, encoded, memory = memory_change(
            cell_with({"model.guard": guard, "model.attention": backend}), PADDED_INTERFACE
        )
        outputs.append(policy.step(encoded, memory))
    torch.testing.assert_close(outputs[0].actions, outputs[1].actions, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs[0].memory, outputs[1].memory, rtol=1e-4, atol=1e-5)


def test_attention_is_bidirectional_within_its_group(cell_with):
    """A change of the last TEXT token reaches the first MEMORY row: nothing here is causal."""
    policy = build_policy(cell_with(), PLAIN_INTERFACE)
    encoded, memory = random_frames(policy, 2), torch.randn(2, 4, 96)
    changed = random_frames(policy, 2)
    changed.text[:, -1] += 1.0
    assert (policy.step(encoded, memory).memory - policy.step(changed, memory).memory)[:, 0].abs().max() > 1e-4


def test_the_language_model_refuses_to_run_without_a_plan(cell_with):
    policy = build_policy(cell_with(), PLAIN_INTERFACE)
    with pytest.raises(MuvlaError, match="never a default"):
        policy.language(inputs_embeds=torch.zeros(1, 4, 96))


def test_a_padded_row_computes_what_the_unpadded_row_does(cell_with):
    """Only possible with explicit positions and per-row segments."""
    padded, plain = build_policy(cell_with(), PADDED_INTERFACE), build_policy(cell_with(), PLAIN_INTERFACE)
    prompt = ["Touch the marked disc."]
    images, proprio = torch.randint(0, 256, (1, 2, 3, 32, 32), dtype=torch.uint8), torch.randn(1, 2)
    memory = torch.randn(1, 4, 96)
    out = [
        policy.step(policy.encode(images, proprio, *policy.encode_text(prompt)), memory) for policy in (padded, plain)
    ]
    torch.testing.assert_close(out[0].actions, out[1].actions, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out[0].memory, out[1].memory, rtol=1e-4, atol=1e-5)
