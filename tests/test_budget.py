"""What a budget is: regimes, the schedule, and what a truncation length can credit."""

import numpy as np
import pytest

from muvla.config import OptimizerConfig
from muvla.configtools import replace
from muvla.data.statistics import Statistics
from muvla.training.budget import coverage, learning_rate
from muvla.training.loop import Trainer
from muvla.training.run import train_to_the_end


@pytest.mark.parametrize(("regime", "W", "U"), [("matched", 8, 4), ("matched_frames", 2, 16), ("published", 2, 4)])
def test_a_budget_regime_is_what_is_trained(store, cell_with, tmp_path, regime, W, U):
    """At K = 2: windows of W ticks, U optimizer steps, U of them the schedule, and the very frames of the declared
    budget as far as they go."""
    cell = cell_with({"truncation": 2, "budget.regime": regime, "optimizer.warmup": 0.0})
    trainer, seen, rates = Trainer(cell, store), [], []
    window, step = trainer.stream.window, trainer.step
    trainer.stream.window = lambda ticks: seen.append(window(ticks)) or seen[-1]

    def stepped():
        result = step()
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        return result

    trainer.step = stepped
    train_to_the_end(trainer, tmp_path)
    seen = seen[1:]  # the canary's look ahead
    assert [w.frame.shape for w in seen] == [(W, 4)] * U and trainer.update == U
    assert all(state["step"] == U for state in trainer.optimizer.state.values())
    assert rates == [learning_rate(cell.optimizer, u, U) for u in range(U)]
    frames = np.concatenate([w.frame for w in seen])
    declared = np.concatenate([w.frame for w in (Trainer(cell_with(), store).stream.window(32),)])
    assert np.array_equal(frames, declared[: len(frames)])


def test_schedule():
    o = OptimizerConfig(lr=1.0, warmup=0.1, final=0.1)
    rates = [learning_rate(o, u, 100) for u in range(100)]
    assert rates[:10] == sorted(rates[:10]) and rates[9] < 1 and rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[-1] == pytest.approx(0.1, abs=0.01)
    scaled = [learning_rate(o, u, 200) for u in range(200)]
    assert scaled[110] == pytest.approx(rates[55], rel=1e-6), "a fraction of U, so that 2U is the same schedule"


def test_coverage_counts_pairs_and_look_ahead(store, base):
    c = coverage(store, base.data, Statistics.of(store), replace(base, {"budget.updates": 200}).budget, 0, (1, 2, 8),
                 (1, 2, 4))  # fmt: skip
    assert c.inside_block[1] == 0 == c.inside_block[2], "cue and decision are at least 2 ticks apart"
    gaps = [line["delay_length"] + 1 for line in store.index]
    expected = sum(8 - g for g in gaps) / (8 * len(gaps))  # uniform alignment of blocks and episodes
    assert c.inside_block[8] == pytest.approx(expected, abs=0.1)
    assert c.look_ahead[1] == 0 and c.look_ahead[4] == 1
    last_of_delay = len(store) / sum(line["delay_length"] for line in store.index)
    assert c.look_ahead[2] == pytest.approx(last_of_delay, abs=0.05)
