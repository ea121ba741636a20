"""The guard: semantics, backends, leaks."""

import logging
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.nn.attention.flex_attention import create_mask

from helpers.policies import EVERYWHERE, ON_CPU, PADDED_INTERFACE, PLAIN_INTERFACE, random_frames, skip_unless_usable
from muvla.checkpoints.build import build_policy
from muvla.config.serialization import replace
from muvla.errors import MuvlaError, NotAMeasurement
from muvla.models import attention, backends
from muvla.models.attention_plan import AttentionPlan
from muvla.models.backends import BACKENDS, resolve
from muvla.models.guard import BARRED_ROWS, may_attend
from muvla.models.leak_test import leak_test
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
    with pytest.raises(MuvlaError) as info:
        may_attend(torch.tensor(0), torch.tensor(0), "contextual")
    assert info.value.field == "model.guard" and "context" in info.value.remedy


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


def varlen_reference(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0, softmax_scale=None, causal=False
):
    """What flash-attn documents of `flash_attn_varlen_func`, sequence by sequence."""
    assert dropout_p == 0.0 and not causal
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32 and len(cu_seqlens_q) == len(cu_seqlens_k)
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    rows, keys = (cu.diff().tolist() for cu in (cu_seqlens_q, cu_seqlens_k))
    assert min(rows) > 0 and max(rows) <= max_seqlen_q and min(keys) > 0 and max(keys) <= max_seqlen_k
    out = []
    for a, b, c in zip(q.split(rows), k.split(keys), v.split(keys), strict=True):
        scores = torch.einsum("qnd,knd->nqk", a, b) * softmax_scale
        out.append(torch.einsum("nqk,knd->qnd", scores.softmax(-1), c))
    return torch.cat(out)


@pytest.fixture
def pretended_flash(monkeypatch):
    """The backend `flash`, computed by the reference above on any device."""
    monkeypatch.setattr(backends, "obstacle", lambda *_: None)
    monkeypatch.setattr(backends, "varlen_kernel", lambda: varlen_reference)


def drawn(trial, guard, backend, device="cpu", dtype=torch.float64):
    """A plan and (q, k, v) of 3 slots: random layout, lengths and padding; every other trial is padded, the later ones
    have grouped key heads."""
    g = torch.Generator().manual_seed(trial)
    draw = lambda low, high: int(torch.randint(low, high + 1, (1,), generator=g))  # noqa: E731
    text = draw(2, 7)
    layout = Layout(draw(1, 6), draw(0, 5), text, draw(1, 6), reserve=8, padded=trial % 2 == 0)
    # Without padding a plan has one row of segments for all slots, as in the policy.
    lengths = torch.randint(1, text + 1, (3,), generator=g) if layout.padded else torch.tensor([text])
    heads = (4, 4 if trial < 3 else 2, 4 if trial < 3 else 2)
    qkv = (torch.randn(3, n, layout.length, 16, generator=g, dtype=torch.float64).to(device, dtype) for n in heads)
    return AttentionPlan(layout, layout.segments(lengths.to(device)), guard, backend), *qkv


def assert_is_the_definition(out, q, k, v, plan, **tolerance):
    q, k, v = (x.double().cpu() for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    segments = plan.segments.cpu().expand(3, -1)
    expected = reference_attention(q, k, v, segments, plan.guard, 0.25)
    is_token = segments != Segment.PAD
    out = out.detach().double().cpu().transpose(1, 2)
    torch.testing.assert_close(out[is_token], expected.transpose(1, 2)[is_token], **tolerance)
    if plan.backend == "flash":
        assert (out[~is_token] == 0).all()


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("backend", EVERYWHERE)
@pytest.mark.parametrize("trial", range(6))
def test_backends_agree_with_the_definition(guard, backend, trial):
    """In float64, or in half precision where only that is to be had."""
    if backend in ON_CPU:
        device, dtype, tolerance = "cpu", torch.float64, {"rtol": 1e-10, "atol": 1e-12}
    else:
        device, dtype, tolerance = "cuda", torch.float16, {"rtol": 5e-3, "atol": 5e-3}
    skip_unless_usable(backend, device, dtype)
    plan, q, k, v = drawn(trial, guard, backend, device, dtype)
    out = BACKENDS[backend](q, k, v, plan, 0.25, k.shape[1] != q.shape[1])
    assert_is_the_definition(out, q, k, v, plan, **tolerance)


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("trial", range(6))
def test_packing_agrees_with_the_definition_and_its_gradient(guard, trial, pretended_flash):
    """All of `flash` but its kernel."""
    plan, *qkv = drawn(trial, guard, "flash")
    gradients, weight = [], torch.randn(qkv[0].shape, dtype=torch.float64)
    weight *= (plan.segments != Segment.PAD)[:, None, :, None]
    for backend in ("flash", "dense"):
        q, k, v = leaves = [x.clone().requires_grad_() for x in qkv]
        out = BACKENDS[backend](q, k, v, plan, 0.25, k.shape[1] != q.shape[1])
        if backend == "flash":
            assert_is_the_definition(out, *qkv, plan, rtol=1e-10, atol=1e-12)
        gradients.append(torch.autograd.grad((out * weight).sum(), leaves))
    for packed, dense in zip(*gradients, strict=True):
        torch.testing.assert_close(packed, dense, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("trial", range(4))
def test_what_flex_is_told_is_the_mask(guard, trial):
    """Over all indices; an unpadded plan answers for every slot of a batch."""
    plan = drawn(trial, guard, "flex")[0]
    length = plan.layout.length
    told = create_mask(plan.mask_mod, 3, 2, length, length, device="cpu")
    mask = may_attend(plan.segments[:, :, None], plan.segments[:, None, :], guard)[:, None]
    assert torch.equal(told, mask.expand(3, 2, -1, -1))


def test_flex_skips_the_blocks_without_an_allowed_pair():
    """At the published length: rows of context see no key of the last block, which holds ACTION and STOP alone."""
    layout = Layout(vision=512, memory=64, text=35, action=56, reserve=64, padded=True)
    plan = AttentionPlan(layout, layout.segments(torch.tensor([35, 3])), "context", "flex")
    blocks = torch.nn.functional.pad(plan.mask, (0, 768 - layout.length) * 2).unflatten(-1, (6, 128))
    expected = blocks.unflatten(-3, (6, 128)).any(-1).any(-2)
    assert torch.equal(plan.block_mask.to_dense().bool(), expected) and not expected[:, :, :4, 5].any()


def memory_change(cell, interface):
    """Largest change of the written memory when the ACTION embeddings are perturbed."""
    policy = build_policy(cell, interface)
    encoded = random_frames(policy, 4)
    memory = torch.randn(4, cell.memory.m, cell.model.size.width, generator=torch.Generator().manual_seed(1))
    return leak_test(policy, encoded, {"tokens": memory}), policy, encoded, memory


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("interface", [PADDED_INTERFACE, PLAIN_INTERFACE], ids=["mixed prompts", "one length"])
def test_context_leaks_exactly_nothing(cell_with, backend, interface):
    cell = cell_with({"model.guard": "context", "model.attention": backend})
    assert memory_change(cell, interface)[0] == 0.0


@pytest.mark.parametrize("backend", ON_CPU)
def test_full_leaks_and_the_leak_test_sees_it(cell_with, backend):
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
    with pytest.raises(NotAMeasurement) as info:
        leak_test(policy, encoded, {"tokens": memory})
    assert info.value.field == "model.guard"


@pytest.mark.parametrize("guard", GUARDS)
@pytest.mark.parametrize("interface", [PADDED_INTERFACE, PLAIN_INTERFACE], ids=["mixed prompts", "one length"])
def test_backends_give_the_same_policy(cell_with, guard, interface, pretended_flash):
    """And none leaks under `context`."""
    outputs = []
    for backend in ("split", "dense", "flash"):
        leak, policy, encoded, memory = memory_change(
            cell_with({"model.guard": guard, "model.attention": backend}), interface
        )
        assert (leak == 0.0) == (guard == "context")
        outputs.append(policy.step(encoded, memory))
    for other in outputs[1:]:
        torch.testing.assert_close(outputs[0].actions, other.actions, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(outputs[0].memory, other.memory, rtol=1e-4, atol=1e-5)


def test_under_autocast_every_kernel_gets_one_dtype(monkeypatch):
    """Rotary positions are float32 there, and so are q and k, but not v."""
    plan, q, k, v = drawn(0, "context", "split", dtype=torch.float32)
    seen = []
    monkeypatch.setitem(BACKENDS, "split", lambda *given: seen.extend(given[:3]) or backends.split(*given))
    with torch.autocast("cpu", torch.bfloat16):
        attention.guarded_attention(None, q, k, v.bfloat16(), None, scaling=0.25, plan=plan)
    assert [x.dtype for x in seen] == [torch.bfloat16] * 3


def hide_flash_attn(monkeypatch):
    monkeypatch.setitem(sys.modules, "flash_attn", None)  # what makes an import fail
    backends.varlen_kernel.cache_clear()


def install_flash_attn(monkeypatch):
    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_varlen_func=varlen_reference))
    backends.varlen_kernel.cache_clear()


@pytest.fixture
def choices(monkeypatch):
    """Caches as in a new process, here and after."""
    caches = (backends.varlen_kernel, backends._choose)
    for cached in caches:
        cached.cache_clear()
    yield
    monkeypatch.undo()
    for cached in caches:
        cached.cache_clear()


@pytest.mark.parametrize("backend", ["flash", "flex"])
def test_backends_for_a_gpu_refuse_the_cpu(cell_with, backend):
    with pytest.raises(MuvlaError) as info:
        memory_change(cell_with({"model.attention": backend}), PADDED_INTERFACE)
    assert info.value.field == "model.attention" and info.value.got == f"{backend} on cpu"


def test_flash_refuses_other_precisions_and_a_missing_kernel(monkeypatch, choices):
    install_flash_attn(monkeypatch)
    assert (
        backends.obstacle("flash", "cuda", torch.float16) is backends.obstacle("flash", "cuda", torch.bfloat16) is None
    )
    assert "float32" in backends.obstacle("flash", "cuda", torch.float32).got
    hide_flash_attn(monkeypatch)
    assert "install" in backends.obstacle("flash", "cuda", torch.float16).remedy


def test_auto_takes_flash_only_for_padded_half_precision_on_a_gpu(monkeypatch, choices):
    install_flash_attn(monkeypatch)
    assert resolve("auto", "cuda", torch.bfloat16, True) == resolve("auto", "cuda", torch.float16, True) == "flash"
    for device, dtype, padded in (
        ("cpu", torch.bfloat16, True),
        ("cuda", torch.float32, True),
        ("cuda", torch.bfloat16, False),
    ):
        assert resolve("auto", device, dtype, padded) == "split"
    hide_flash_attn(monkeypatch)
    assert resolve("auto", "cuda", torch.bfloat16, True) == "split"
    assert all(resolve(name, "cuda", torch.bfloat16, True) == name for name in BACKENDS)


def test_auto_computes_what_split_does_and_says_so_once(cell_with, choices, caplog):
    caplog.set_level(logging.INFO, "muvla.models.backends")
    outputs = []
    for backend in ("split", "auto"):
        _, policy, encoded, memory = memory_change(cell_with({"model.attention": backend}), PADDED_INTERFACE)
        outputs.append(policy.step(encoded, memory).memory)
        assert len(caplog.messages) == (backend == "auto")
    assert torch.equal(*outputs)
    assert "auto is split" in caplog.messages[0]


def test_attention_is_bidirectional_within_its_group(cell_with):
    """A change of the last TEXT token reaches the first MEMORY row: nothing here is causal."""
    policy = build_policy(cell_with(), PLAIN_INTERFACE)
    encoded, memory = random_frames(policy, 2), torch.randn(2, 4, 96)
    changed = random_frames(policy, 2)
    changed.text[:, -1] += 1.0
    assert (policy.step(encoded, memory).memory - policy.step(changed, memory).memory)[:, 0].abs().max() > 1e-4


def test_the_language_model_refuses_to_run_without_a_plan(cell_with):
    policy = build_policy(cell_with(), PLAIN_INTERFACE)
    with pytest.raises(MuvlaError) as info:
        policy.language(inputs_embeds=torch.zeros(1, 4, 96))
    assert info.value.field == "plan"


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
