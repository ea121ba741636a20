"""Dynamics: known answers of every measure, and the alignment at events."""

import numpy as np
import pandas as pd
import pytest

from muvla.errors import MuvlaError
from muvla.probes.dynamics import ALL, changes, figure, frame, norms, participation_ratios, write_ratios
from muvla.probes.registry import get_measurement
from muvla.probes.traces import Trace


def trace(memory, cue_end=1, delay_end=3, seed=0, start=0):
    ticks = len(memory)
    events = {"cue_end": cue_end, "delay_end": delay_end, "first_decision": delay_end + 1}
    return Trace(
        seed,
        {"tokens": np.asarray(memory, np.float32)},
        np.zeros((ticks, 1, 1), np.float32),
        np.arange(ticks) + start,
        np.ones(ticks, np.int32),
        {"target": 0},
        events,
        {},
    )


def test_a_memory_that_stays_does_not_change():
    memory = np.tile(np.arange(1.0, 13.0).reshape(1, 3, 4), (5, 1, 1))
    assert np.isnan(changes(memory)[0]).all() and np.isnan(write_ratios(memory)[0])
    np.testing.assert_allclose(changes(memory)[1:], 0, atol=1e-12)
    assert (write_ratios(memory)[1:] == 0).all()
    np.testing.assert_allclose(norms(memory)[:, 0], np.sqrt(1 + 4 + 9 + 16))


def test_known_changes():
    turned = np.array([[[1.0, 0.0]], [[0.0, 2.0]], [[0.0, -2.0]], [[0.0, -6.0]]])
    np.testing.assert_allclose(changes(turned)[1:, 0], [1, 2, 0])  # a right angle, opposite, only longer
    np.testing.assert_allclose(write_ratios(turned)[1:], [np.sqrt(5), 2, 2])
    nothing = np.zeros((3, 2, 4))
    assert np.isnan(changes(nothing)).all() and np.isnan(write_ratios(nothing)).all(), "0/0 is no value"


@pytest.mark.parametrize("dimension", [1, 2, 5])
@pytest.mark.parametrize("width", [5, 96])
def test_the_participation_ratio_is_the_dimension_that_tokens_spread_over(dimension, width):
    axes = np.eye(dimension, width)
    spread = (
        np.concatenate([axes, -axes]) + 3.0
    )  # one-hot for one dimension, isotropic in `dimension`; the mean is no spread
    np.testing.assert_allclose(participation_ratios(spread[None]), dimension)
    covariance = np.cov(np.random.default_rng(0).normal(size=(8, width)), rowvar=False)
    own = np.random.default_rng(0).normal(size=(1, 8, width))
    values = np.linalg.eigvalsh(covariance)
    np.testing.assert_allclose(participation_ratios(own), values.sum() ** 2 / (values**2).sum())


def test_tokens_that_do_not_differ_have_no_participation_ratio():
    assert np.isnan(participation_ratios(np.ones((2, 3, 4)))).all()
    assert np.isnan(participation_ratios(np.ones((2, 1, 4)))).all(), "one token"


def test_a_jump_after_the_cue_stands_at_step_one_whenever_the_cue_ends():
    episodes = []
    for seed, cue_end in enumerate((0, 1, 3, 4)):
        memory = np.tile([[1.0, 0.0], [0.0, 1.0]], (8, 1, 1))
        memory[cue_end + 1 :, 0] = [0.0, 1.0]  # token 0 turns by a right angle
        episodes.append(trace(memory, cue_end, cue_end + 2, seed))
    table = frame(episodes)
    changed = table[(table.measure == "change") & (table.event == "cue_end")]
    at = changed[changed.since_cue == 1].set_index("token")
    assert at.value.to_dict() == {ALL: 0.5, 0: 1.0, 1: 0.0} and (at.n == 4).all()
    assert (at.low == at.value).all() and (at.high == at.value).all(), "all episodes agree"
    assert not changed[(changed.since_cue != 1)].value.any()
    decision = table[(table.measure == "change") & (table.event == "first_decision") & (table.token == 0)]
    assert decision.set_index("since").value.to_dict()[-2] == 1.0 and decision.since_cue.isna().all()
    assert set(table[table.event == "cue_end"].curve.dropna()) == {"change", "write ratio"}
    assert table.loc[table.event != "cue_end", "curve"].isna().all()


def test_the_interval_is_students_over_episodes():
    scales = (1.0, 2.0, 3.0, 6.0)
    table = frame([trace(np.full((2, 1, 4), scale), seed=i) for i, scale in enumerate(scales)])
    one = table[
        (table.measure == "norm") & (table.event == "cue_end") & (table.token == ALL) & (table.since == 0)
    ].iloc[0]
    mean, error = np.mean(scales) * 2, np.std(scales, ddof=1) * 2 / 2
    assert one.n == 4 and one.value == pytest.approx(mean)
    assert (one.low, one.high) == pytest.approx((mean - 3.182446 * error, mean + 3.182446 * error))
    alone = frame([trace(np.ones((2, 1, 4)))])
    assert alone.low.isna().all() and alone.high.isna().all() and alone.value.notna().all()


def test_episodes_without_events_have_no_dynamics_to_align():
    plain = trace(np.ones((3, 2, 4)))
    plain.events.clear()
    with pytest.raises(MuvlaError) as refused:
        frame([plain])
    assert refused.value.field == "probe dynamics"


@pytest.mark.slow
def test_the_figure_is_drawn_and_the_same_every_time():
    rng = np.random.default_rng(0)
    table = frame([trace(rng.normal(size=(6, 3, 4)), seed=i) for i in range(3)])
    first = figure(table)
    assert first.startswith(b"\x89PNG") and first == figure(table)


def test_the_frame_has_the_columns_that_the_reading_names():
    one = get_measurement("dynamics@1")
    table = frame([trace(np.ones((4, 2, 4)), seed=i) for i in range(2)])
    assert isinstance(table, pd.DataFrame) and set(one.columns) <= set(table) and one.id == "dynamics@1"
