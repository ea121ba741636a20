"""What a budget is: regimes, the schedule, and what a truncation length can credit."""

import numpy as np
import pytest

from muvla.config import OptimizerConfig
from muvla.config.serialization import replace
from muvla.envs.phases import Phase
from muvla.training.coverage import measure_coverage
from muvla.training.lr_schedule import get_learning_rate
from muvla.training.run import train_to_the_end
from muvla.training.trainer import Trainer


@pytest.mark.parametrize(("regime", "W", "U"), [("matched", 8, 4), ("matched_frames", 2, 16), ("published", 2, 4)])
def test_a_budget_regime_is_what_is_trained(store, cell_with, tmp_path, regime, W, U):
    """At K = 2: windows of W ticks, U optimizer steps, U of them the schedule, and the very frames of the declared
    budget as far as they go."""
    cell = cell_with({"truncation": 2, "budget.regime": regime, "optimizer.warmup": 0.0})
    trainer, seen, rates = Trainer(cell, store), [], []
    window, step = trainer.prefetcher.window, trainer.step
    trainer.prefetcher.window = lambda *asked, **how: seen.append(window(*asked, **how)) or seen[-1]

    def stepped(diagnosis):
        result = step(diagnosis)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        return result

    trainer.step = stepped
    train_to_the_end(trainer, tmp_path)
    assert [w.frame.shape for w in seen] == [(W, 4)] * U and trainer.update == U
    assert all(state["step"] == U for state in trainer.optimizer.state.values())
    assert rates == [get_learning_rate(cell.optimizer, u, U) for u in range(U)]
    frames = np.concatenate([w.frame for w in seen])
    declared = np.concatenate([w.frame for w in (Trainer(cell_with(), store).stream.window(32),)])
    assert np.array_equal(frames, declared[: len(frames)])


def test_schedule():
    o = OptimizerConfig(lr=1.0, warmup=0.1, final=0.1)
    rates = [get_learning_rate(o, u, 100) for u in range(100)]
    assert rates[:10] == sorted(rates[:10]) and rates[9] < 1 and rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[-1] == pytest.approx(0.1, abs=0.01)
    scaled = [get_learning_rate(o, u, 200) for u in range(200)]
    assert scaled[110] == pytest.approx(rates[55], rel=1e-6), "a fraction of U, so that 2U is the same schedule"


def test_coverage_counts_pairs_and_look_ahead(store, base):
    c = measure_coverage(
        store,
        base.data,
        replace(base, {"budget.updates": 200}).budget,
        0,
        [(K, "window") for K in (1, 2, 8)],
        (1, 2, 4),
    )
    assert c.inside_block[1, "window"] == 0 == c.inside_block[2, "window"], (
        "cue and decision are at least 2 ticks apart"
    )
    gaps = [line["delay_length"] + 1 for line in store.index]
    expected = sum(8 - g for g in gaps) / (8 * len(gaps))  # uniform alignment of blocks and episodes
    assert c.inside_block[8, "window"] == pytest.approx(expected, abs=0.1)
    assert c.look_ahead[1] == 0 and c.look_ahead[4] == 1
    last_of_delay = len(store) / sum(line["delay_length"] for line in store.index)
    assert c.look_ahead[2] == pytest.approx(last_of_delay, abs=0.05)


@pytest.mark.parametrize("origin", ["window", "episode"])
def test_pairs_inside_a_block_are_counted_as_the_blocks_are_cut(store, base, origin):
    """From the definition, pair by pair. Blocks of 4 from the episode hold every pair whose decision is among the first
    4 ticks of an episode that no window cuts; blocks from the window hold some of them only by chance."""
    cell = replace(base, {"budget.updates": 60, "truncation": 4})
    c = measure_coverage(store, base.data, cell.budget, 0, [(4, origin)], (1,))
    stream, pairs, inside = Trainer(cell, store).stream, 0, 0
    cue = [None] * 4
    for _ in range(60):
        window = stream.window(8)
        for slot in range(4):
            counted_from = 0
            for t in range(8):
                if window.is_first[t, slot]:
                    cue[slot] = None
                    counted_from = t if origin == "episode" else 0
                if window.phase[t, slot] == Phase.CUE:
                    cue[slot] = (id(window), counted_from, (t - counted_from) // 4)
                elif window.phase[t, slot] == Phase.DECISION and cue[slot]:
                    pairs += 1
                    inside += cue[slot] == (id(window), counted_from, (t - counted_from) // 4)
                    cue[slot] = None
    assert c.pairs == pairs > 50 and c.inside_block[4, origin] == pytest.approx(inside / pairs)


def test_blocks_counted_from_the_episode_hold_what_the_episodes_length_says(store, base):
    """One window alone cuts no episode: inside are the pairs whose decision is among its episode's first 4 ticks."""
    budget = replace(base, {"budget.updates": 1, "budget.window": 480}).budget
    c = measure_coverage(store, base.data, budget, 0, [(4, "window"), (4, "episode")], (1,))
    expected = np.mean([line["cue_length"] + line["delay_length"] < 4 for line in store.index])
    assert c.inside_block[4, "episode"] == pytest.approx(expected, abs=0.05)
    assert c.inside_block[4, "episode"] > c.inside_block[4, "window"]
