"""The batched bank equals a sequential reference; empty and never full stores; gradients."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from helpers.bank_reference import SequentialBank, randomise
from muvla.memory.bank_stream import BankStream, StreamSettings
from muvla.memory.compressor import Compressor, GateFirstCompressor, compressor_flops

SLOTS, TICKS, TOKENS, WIDTH = 3, 14, 2, 8


def built(dtype=torch.float64, **settings):
    module = BankStream(TOKENS, WIDTH, StreamSettings(**{"capacity": 3, **settings}))
    return randomise(module, seed=3).to(dtype)


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reset(module, store, is_first):
    return store.replaced(is_first, module.empty_store(len(is_first)))


@pytest.mark.parametrize("fused_write", [False, True])
@pytest.mark.parametrize("rule", ["merge", "counted_merge", "fifo"])
@pytest.mark.parametrize(
    "settings", [{}, {"heads": 4, "layers": 1}, {"time_code": False}, {"gate": False}, {"capacity": 1}]
)
def test_a_batch_equals_the_sequential_reference_for_random_episode_boundaries(settings, rule, fused_write):
    module = built(rule=rule, **settings)
    tokens = drawn(1, TICKS, SLOTS, TOKENS, WIDTH)
    first = torch.rand(TICKS, SLOTS, generator=torch.Generator().manual_seed(2)) < 0.15
    first[0] = True
    chosen = module.settings
    weights = module.state_dict()
    reference = SequentialBank(weights, chosen.capacity, chosen.heads, rule, fused_write)
    store, start, merges = module.empty_store(SLOTS), [0] * SLOTS, 0
    for t in range(TICKS):
        start = [t if f else s for f, s in zip(first[t].tolist(), start, strict=True)]
        now = torch.tensor([t - s for s in start])
        store = reset(module, store, first[t])
        lookup = module.lookup(tokens[t], store, now)
        store = module.append(store, lookup.fused if fused_write else tokens[t], now)
        for slot in range(SLOTS):
            fused = reference.frame((slot, start[slot]), tokens[t, slot], t - start[slot])
            torch.testing.assert_close(lookup.fused[slot], fused, rtol=0, atol=1e-9)
            bank, length = reference.banks[slot, start[slot]], int(store.length[slot])
            assert length == len(bank)
            assert store.times[slot, :length].tolist() == [time for time, _, _ in bank]
            assert store.counts[slot, :length].tolist() == [count for _, _, count in bank]
            torch.testing.assert_close(
                store.entries[slot, :length], torch.stack([m for _, m, _ in bank]), rtol=0, atol=1e-9
            )
            assert not store.entries[slot, length:].any(), "a row without an entry is empty"
            merges += max(store.counts[slot].tolist()) > 1
    assert (merges > 0) == (rule != "fifo"), "episodes longer than the capacity"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_empty_store_returns_its_input(dtype):
    x, now = drawn(1, SLOTS, TOKENS, WIDTH).to(dtype), torch.zeros(SLOTS, dtype=torch.int64)
    for gate in (False, True):
        module = built(dtype, gate=gate)
        lookup = module.lookup(x, module.empty_store(SLOTS), now)
        assert torch.equal(lookup.retrieved, x) and not lookup.mass.any()
        bound = 1.2e-7 * x.abs().max().item() if gate else 0.0
        assert (lookup.fused - x).abs().max() <= bound


def test_an_empty_slot_beside_full_ones_gets_its_input_and_finite_gradients():
    module = built()
    x = drawn(1, SLOTS, TOKENS, WIDTH)
    store = module.append(module.empty_store(SLOTS), drawn(2, SLOTS, TOKENS, WIDTH), torch.zeros(SLOTS))
    store = reset(module, store, torch.tensor([False, True, False]))
    lookup = module.lookup(x, store, torch.ones(SLOTS))
    assert torch.equal(lookup.retrieved[1], x[1]) and not torch.equal(lookup.retrieved[0], x[0])
    lookup.fused.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)


def test_all_rules_agree_while_no_store_is_full():
    results = []
    for rule in ("merge", "counted_merge", "fifo"):
        module = built(capacity=TICKS, rule=rule)
        store = module.empty_store(SLOTS)
        for t in range(TICKS):
            x, now = drawn(t, SLOTS, TOKENS, WIDTH), torch.full((SLOTS,), t)
            results.append(module.lookup(x, store, now).fused)
            store = module.append(store, x, now)
    third = len(results) // 3
    for a, b, c in zip(results[:third], results[third : 2 * third], results[2 * third :], strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)


def test_gradient_reaches_an_entry_through_retrieval_and_through_a_merge():
    module = built(capacity=2)
    entries = [drawn(t, SLOTS, TOKENS, WIDTH).requires_grad_() for t in range(4)]
    store = module.empty_store(SLOTS)
    for t, entry in enumerate(entries):
        store = module.append(store, entry, torch.full((SLOTS,), t))
    module.lookup(drawn(9, SLOTS, TOKENS, WIDTH), store, torch.full((SLOTS,), 4)).fused.sum().backward()
    assert all((entry.grad.abs().sum(dim=(1, 2)) > 0).all() for entry in entries)


def test_the_mass_of_an_entry_is_the_share_of_attention_on_its_tokens():
    module = built(heads=2)
    store = module.empty_store(SLOTS)
    for t in range(2):
        store = module.append(store, drawn(t, SLOTS, TOKENS, WIDTH), torch.full((SLOTS,), t))
    mass = module.lookup(drawn(9, SLOTS, TOKENS, WIDTH), store, torch.full((SLOTS,), 2)).mass
    assert mass.shape == (SLOTS, 2, 3) and not mass[..., 2].any(), "the third entry holds nothing"
    torch.testing.assert_close(mass.sum(dim=-1), torch.ones(SLOTS, 2, dtype=torch.float64))


@pytest.mark.parametrize("settings", [{}, {"gate": False, "time_code": False, "heads": 2, "layers": 1}])
def test_the_flops_are_those_that_torch_counts(settings):
    module = built(**settings)
    store, x = module.empty_store(SLOTS), drawn(1, SLOTS, TOKENS, WIDTH)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.lookup(x, store, torch.zeros(SLOTS))
    assert SLOTS * module.flops() == counter.get_total_flops()
    for compressor in (Compressor(24, 16), GateFirstCompressor(24, 16)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            compressor(torch.zeros(SLOTS, 2, 5, 24))
        assert SLOTS * compressor_flops(compressor, patches=10, cameras=2) == counter.get_total_flops()
