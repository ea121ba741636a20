"""Where gradient goes and where it stops, on the trainer's own code path."""

import dataclasses

import numpy as np
import pytest
import torch

from muvla.config import dummy, ema, no_memory, tbptt
from muvla.config.serialization import replace
from muvla.training.trainer import Trainer
from muvla.training.truncation import find_block_starts


@pytest.fixture
def written(monkeypatch):
    """Collects every written memory of a trainer, with gradients kept."""

    def attach(trainer):
        outputs = []
        original = trainer.policy.memory.write

        def write(*args):
            result = original(*args)
            if result["tokens"].requires_grad:
                result["tokens"].retain_grad()
            outputs.append(result["tokens"])
            return result

        monkeypatch.setattr(trainer.policy.memory, "write", write)
        return outputs

    return attach


def window_with_loss_only_at(window, tick, is_first):
    weight = torch.zeros_like(window.weight)
    weight[tick] = 1
    return dataclasses.replace(window, weight=weight, is_first=is_first)


@pytest.mark.parametrize(
    ("K", "origin"), [(1, "window"), (2, "window"), (4, "window"), (8, "window"), (2, "episode"), (4, "episode")]
)
@pytest.mark.parametrize("alpha", [1.0, pytest.param(0.3, marks=pytest.mark.slow)])
def test_gradient_of_loss_j_reaches_memory_i_exactly_as_defined(store, cell_with, written, K, origin, alpha):
    """∂loss_j/∂M_i ≠ 0 iff i < j, both in one block, and no episode of the slot starts in (i, j]."""
    cell = cell_with({"truncation": K, "truncation_from": origin, "memory.alpha": alpha})
    W, B = 8, cell.budget.slots
    is_first = torch.zeros(W, B, dtype=torch.bool)
    is_first[0] = True
    for slot, start in ((1, 3), (2, 4), (3, 7)):
        is_first[start, slot] = True
    trainer = Trainer(cell, store)
    outputs, window = written(trainer), trainer.stream.window(W)
    for j in range(W):
        outputs.clear()
        trainer.backward(window_with_loss_only_at(window, j, is_first))
        for i in range(W):
            grad = outputs[i].grad if outputs[i].requires_grad else None
            for slot in range(B):
                moved = grad is not None and bool(grad[slot].abs().sum() > 0)
                begin = 0  # of what blocks are counted from, at tick i; at j it is the same, or an episode lies between
                if origin == "episode":
                    begin = max(t for t in range(i + 1) if is_first[t, slot])
                one_block = (i - begin) // K == (j - begin) // K
                expected = i < j and one_block and not is_first[i + 1 : j + 1, slot].any()
                assert moved == expected, (K, i, j, slot)


def test_blocks_start_where_they_are_counted_from():
    """Four slots whose episodes start at ticks none, 3, 4 and 2 and 7 of a window that continues an episode."""
    is_first = np.zeros((8, 4), dtype=bool)
    for slot, t in ((1, 3), (2, 4), (3, 2), (3, 7)):
        is_first[t, slot] = True
    ticks = lambda starts: [np.flatnonzero(column).tolist() for column in starts.T]  # noqa: E731
    assert ticks(find_block_starts(is_first, 4, "window")) == [[0, 4]] * 4
    assert ticks(find_block_starts(is_first, 4, "episode")) == [[0, 4], [0, 3, 7], [0, 4], [0, 2, 6, 7]]
    assert ticks(find_block_starts(is_first, 8, "episode")) == [[0], [0, 3], [0, 4], [0, 2, 7]], (
        "K = W: episodes and windows"
    )
    assert find_block_starts(is_first, 1, "episode").all()


@pytest.mark.parametrize("change", [tbptt(1, 4), ema(0.1, 4), dummy(4)], ids=["tbptt(1)", "ema", "dummy"])
def test_writes_never_get_gradient_with_k_one(store, cell_with, written, change):
    trainer = Trainer(cell_with(change), store)
    outputs = written(trainer)
    trainer.backward(trainer.stream.window(8))
    if change["memory.kind"] == "dummy":  # what it "writes" is its parameter, which is trained by being read
        assert all(torch.equal(o[0], trainer.policy.memory.initial) for o in outputs)
    else:
        assert all(o.grad is None or o.grad.abs().sum() == 0 for o in outputs)


def test_memory_keeps_its_value_across_windows_and_updates(store, cell_with):
    trainer = Trainer(cell_with(), store)
    trainer.step()
    carried = trainer.recurrence.state["tokens"].clone()
    window = trainer.stream.window(8)
    read = []
    original = trainer.policy.step
    trainer.policy.step = lambda encoded, tokens, *others: (
        read.append(tokens.detach().clone()),
        original(encoded, tokens, *others),
    )[1]
    trainer.backward(window)
    for slot in range(4):
        expected = trainer.policy.memory.initial if window.is_first[0, slot] else carried[slot]
        assert torch.equal(read[0][slot], expected)


def naive_gradients(trainer, window):
    """Step by step: everything of a tick, vision included, computed at that tick; one graph per truncation block."""
    W = len(window.is_first)
    K, policy, state = (
        trainer.cell.truncation,
        trainer.policy,
        trainer.policy.memory.init_state(window.is_first.shape[1]),
    )
    for start in range(0, W, K):
        loss = 0.0
        for t in range(start, start + K):
            first = window.is_first[t]
            state = policy.memory.reset(state, first if policy.memory.recurs else torch.ones_like(first))
            encoded = policy.encode(window.images[t], window.proprio[t], window.text_ids[t], window.text_lengths[t])
            output = policy.step(encoded, policy.memory.read(state).tokens)
            state = policy.memory.write(state, output.taps)
            loss = loss + ((output.actions - window.label[t]).abs() * window.weight[t][..., None]).sum()
        (loss / window.label.numel()).backward()
        state = {k: v.detach() for k, v in state.items()}


def naive_gradients_by_slot(trainer, window):
    """The same with every slot alone, and its blocks counted from its own episode's first tick."""
    policy, K = trainer.policy, trainer.cell.truncation
    for slot in range(window.is_first.shape[1]):
        state, losses, played = policy.memory.init_state(1), [], 0
        for t, (first,) in enumerate(window.is_first[:, slot : slot + 1]):
            played = 0 if first else played
            if played % K == 0 and losses:
                (sum(losses) / window.label.numel()).backward()
                state, losses = {k: v.detach() for k, v in state.items()}, []
            played += 1
            state = policy.memory.reset(state, window.is_first[t, slot : slot + 1])
            inputs = (window.images, window.proprio, window.text_ids, window.text_lengths)
            output = policy.step(
                policy.encode(*(x[t, slot : slot + 1] for x in inputs)), policy.memory.read(state).tokens
            )
            state = policy.memory.write(state, output.taps)
            error = (output.actions - window.label[t, slot : slot + 1]).abs()
            losses.append((error * window.weight[t, slot : slot + 1, :, None]).sum())
        (sum(losses) / window.label.numel()).backward()


TOWERS_FIRST = ("dino.embeddings.patch_embeddings.projection", "siglip.embeddings.patch_embedding")
PUBLISHED = [(1, "window"), (2, "window"), (8, "window")]
CASES = [
    *((K, origin, {}) for K, origin in [*PUBLISHED, (2, "episode"), (4, "episode")]),
    *(
        pytest.param(K, origin, {"memory.alpha": 0.3}, marks=pytest.mark.slow)
        for K, origin in [*PUBLISHED, (2, "episode"), (4, "episode")]
    ),
    *(
        pytest.param(K, "window", change, marks=pytest.mark.slow)
        for K, _ in PUBLISHED
        for change in (dummy(4), no_memory(), {"model.film": True})
    ),
]


@pytest.mark.parametrize(("K", "origin", "change"), CASES, ids=str)
def test_windowed_gradients_equal_the_naive_loop(store, cell_with, K, origin, change):
    """One vision pass per window with leaves against one per tick, to 1e-10 relative in float64; the towers are
    trained, and two slots start an episode within the window."""
    grads = []
    for method in ("window", "naive"):
        trainer = Trainer(cell_with({"truncation": K, "truncation_from": origin, **change}), store)
        trainer.cell = replace(trainer.cell, {"truncation": K})  # also where nothing recurs, and K changes nothing
        trainer.policy.double()
        window = trainer.stream.window(8)
        is_first = torch.zeros_like(window.is_first)
        is_first[0] = is_first[3, 1] = is_first[4, 2] = True
        double = dataclasses.replace(
            window, proprio=window.proprio.double(), label=window.label.double(), is_first=is_first
        )
        trainer.recurrence.state = trainer.policy.memory.init_state(4)
        naive = naive_gradients if origin == "window" else naive_gradients_by_slot
        trainer.backward(double) if method == "window" else naive(trainer, double)
        grads.append({n: p.grad.clone() for n, p in trainer.policy.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    assert all(grads[0][f"vision.{tower}.weight"].abs().max() > 0 for tower in TOWERS_FIRST)
    for name, grad in grads[0].items():
        # A key bias's gradient is exactly zero in theory, so its own size is no scale: a floor of 1e-3.
        scale = max(grads[1][name].abs().max().item(), 1e-3)
        assert (grad - grads[1][name]).abs().max().item() <= 1e-10 * scale, name


def test_k_changes_the_gradient_and_nothing_before_it(store, cell_with):
    """The first window's loss is the same for every K; its gradient into the writes is not."""
    losses, grads = [], []
    for K in (1, 2, 8):
        trainer = Trainer(replace(cell_with(), {"truncation": K}), store)
        losses.append(trainer.backward(trainer.stream.window(8)))
        grads.append(trainer.policy.language.layers[0].self_attn.q_proj.weight.grad.clone())
    assert max(losses) - min(losses) < 1e-6
    assert not torch.allclose(grads[0], grads[1]) and not torch.allclose(grads[1], grads[2])


@pytest.mark.parametrize("K", [1, 8])
def test_dummy_trains_as_tokens_reset_at_every_tick_across_truncations(store, cell_with, K):
    """Through the trainer and over two windows: losses and gradients, bit for bit. A tick after a truncation must train
    the tokens like any other."""
    results = []
    for change, always in (({"memory.kind": "dummy"}, False), ({"memory.kind": "tokens"}, True)):
        trainer = Trainer(cell_with(change), store)
        trainer.cell = replace(trainer.cell, {"truncation": K})
        losses = []
        for _ in range(2):
            window = trainer.stream.window(8)
            if always:
                window = dataclasses.replace(window, is_first=torch.ones_like(window.is_first))
            losses.append(trainer.backward(window))
        results.append((losses, {n: p.grad for n, p in trainer.policy.named_parameters() if p.grad is not None}))
    assert results[0][0] == results[1][0]
    assert results[0][1].keys() == results[1][1].keys()
    for name, grad in results[0][1].items():
        assert torch.equal(grad, results[1][1][name]), name


def test_dummy_tokens_get_gradient_at_the_first_tick_after_a_truncation(store, cell_with):
    trainer = Trainer(cell_with(dummy(4)), store)
    trainer.backward(trainer.stream.window(8))
    trainer.policy.zero_grad()
    window = trainer.stream.window(8)
    trainer.backward(window_with_loss_only_at(window, 0, torch.zeros_like(window.is_first)))
    assert trainer.policy.memory.initial.grad.abs().sum() > 0
