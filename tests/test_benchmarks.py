"""The benchmarks run, and what they compare computes the same. No test looks at a time."""

import dataclasses

import numpy as np
import pytest
import torch

from benchmarks import attention, experts, query, tiny, window
from benchmarks.memory import added_peak
from benchmarks.pairs import compare
from muvla.models.attention import usable
from muvla.models.sequence import Layout
from muvla.models.sizes import size
from muvla.training.loop import Trainer


@pytest.mark.parametrize("film", [False, True])
def test_both_sides_of_vision_once_compute_one_gradient(store, cell_with, film):
    """With FiLM the prompt's embedding reaches the loss through the towers as well, and is counted once."""
    cell = cell_with({"truncation": 4, "model.film": film})
    once, per_tick = Trainer(cell, store), tiny.StepByStep(cell, store)
    losses = [trainer.backward(trainer.stream.window(8)) for trainer in (once, per_tick)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)
    for (name, a), (_, b) in zip(once.policy.named_parameters(), per_tick.policy.named_parameters(), strict=True):
        if a.grad is not None or b.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.slow
def test_every_table_is_made(store, monkeypatch):
    monkeypatch.setattr(tiny, "compare", lambda a, b, rounds=1: compare(a, b, rounds=1))
    for table, lines in ((tiny.vision_once, 3), (tiny.queries, 3), (tiny.guard, 4)):
        rows = table(store)
        assert len(rows) == lines and all(len(row) == 4 and row[-1].endswith("]") for row in rows)


def test_the_cost_of_the_guard_is_measured_for_every_usable_backend():
    small = Layout(vision=8, memory=2, text=3, action=4, reserve=2, padded=False)
    rows = attention.costs(rounds=1, layout=small, memory=lambda *_: 1.0)
    backends = usable(attention.DEVICE, attention.DTYPE)
    assert [row[0] for row in rows] == [f"{b}, {way}" for b in backends for way in ("forward", "with backward")]
    assert backends[:2] == ["dense", "split"]
    assert all(len(row) == 6 and row[3].endswith("]") for row in rows)


def test_the_peak_is_that_of_the_call_alone():
    """Whatever this process held before."""
    held = np.ones(60_000_000)
    del held
    for megabytes in (40, 160):
        measured = added_peak(lambda n=megabytes: np.ones(n * 131_072).sum(), "cpu")
        assert abs(measured - megabytes) < 10


def test_a_query_and_a_training_step_are_measured(monkeypatch):
    """At the tiny size; the real one needs a GPU."""
    monkeypatch.setattr(query, "BATCHES", (1, 2))
    policy = query.random_policy(size("tiny"), "cpu")
    before = {n: p.detach().clone() for n, p in policy.named_parameters() if p.requires_grad}
    made = query.rows(policy, "cpu", rounds=1)
    assert [row[0] for row in made] == ["query, batch 1", "query, batch 2", "LoRA training step, K = 2, 4 slots"]
    after = dict(policy.named_parameters())
    assert not torch.equal(after["head.fc_in.weight"], before["head.fc_in.weight"])
    assert not torch.equal(after["memory.initial"], before["memory.initial"])
    assert all(torch.isfinite(p).all() for p in after.values())


def test_a_window_is_measured_with_and_without_checkpointing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(window, "peak", lambda name, truncation, checkpointing, root: 1.0 + checkpointing)
    window.main("tiny", rounds=1, here=tmp_path)
    text = (tmp_path / "window.md").read_text()
    assert text.count("| K = ") == 3 and "2.00×" in text and text.strip() in capsys.readouterr().out


def test_the_experts_table_is_made_of_rows():
    def row(task, seed, success, no_ops, assets=()):
        return experts.Row(task, seed, success, 12 + seed, 0, 0, no_ops - 1, 1, "physx_cpu", list(assets), "code")

    rows = [row("RememberColor3-VLA-v0", i, i != 3, 2 + 2 * i) for i in range(4)]
    rows += [dataclasses.replace(row("ShellGamePush-VLA-v0", 0, True, 1, ["025_mug"]), delay_length=0)]
    rows += [dataclasses.replace(row("TakeItBack-VLA-v0", 0, True, 1), delay_length=0)]
    color, push, back = experts.rates(rows)
    assert color[1].startswith("0.75 [") and color[1].endswith("3/4") and color[2:4] == ["13, 12–14", "25"]
    assert color[4].startswith("2–4: 1.00") and color[5].startswith("6–8: 0.50")
    assert push[0] == "ShellGamePush-VLA-v0 (stand-in 025_mug)" and back[4:] == ["–", "–"]
