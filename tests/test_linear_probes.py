"""Decoders on planted memories: what is there is found, what is not is not, and no episode helps to predict itself."""

import numpy as np
import pandas as pd
import pytest

from muvla.envs.phases import Phase
from muvla.errors import Interrupted, MuvlaError
from muvla.probes import linear_probes as decoders
from muvla.probes.linear_probes import FOLDS, Ticks, episode_folds, frame, held_out, since_classes
from muvla.probes.registry import get_measurement
from muvla.probes.traces import Trace

CUE, DELAY, LENGTH = 2, 2, 7  # cue_end at step 1
BLANK = 1


def episode(seed, target, memory, labels=None, cue=True):
    phases = [Phase.BLANK] * BLANK + [Phase.CUE] * CUE + [Phase.DELAY] * DELAY
    phases += [Phase.DECISION] * (LENGTH - len(phases))
    events = {"cue_end": BLANK + CUE - 1, "delay_end": BLANK + CUE + DELAY - 1} if cue else {}
    return Trace(
        seed,
        {"tokens": memory.astype(np.float32)},
        memory[:, :1],
        np.arange(LENGTH),
        np.array(phases),
        {"target": target} | (labels or {}),
        events,
        {},
    )


def planted(episodes=60, classes=3, signal=0.0, numbers=24, **labels):
    """Memories (7, 2, 12) of noise in which the target stands from the cue on, with this strength."""
    rng, found = np.random.default_rng(0), []
    for seed in range(episodes):
        memory = rng.normal(size=(LENGTH, 2, numbers // 2))
        memory[BLANK:, 0, seed % classes] += signal
        found.append(episode(seed, seed % classes, memory, {name: of(seed) for name, of in labels.items()}))
    return found


def curve(table, name):
    return table[table.curve == name].set_index("since_cue")


def targets(traces, control="none"):
    """What `frame` has of the target alone."""
    ticks = Ticks.of(traces)
    values = decoders._order(ticks, ticks.labels["target"], "target", control)
    return pd.DataFrame(decoders._of_episodes(ticks, "target", values, control, lambda: None)).set_index("since_cue")


def times(traces, label="phase"):
    """What `frame` has of one label of ticks."""
    ticks = Ticks.of(traces)
    values = ticks.phase if label == "phase" else since_classes(ticks.since)
    return pd.DataFrame(decoders._of_ticks(ticks, label, values, "none", lambda: None)).set_index("since_cue")


def test_what_a_memory_carries_is_found_from_the_cue_on_and_not_before():
    found = targets(planted(signal=12.0))
    assert list(found.index) == [-2, -1, 0, 1, 2, 3, 4] and (found.n == 60).all()
    after = found[found.index >= -1]
    assert (after.value == 1).all() and (after.low > 0.93).all()
    np.testing.assert_allclose(after.bits, np.log2(3), atol=0.1)
    before = found.loc[-2]
    assert before.low < 1 / 3 < before.high and before.bits < 0.05


def test_labels_that_are_shuffled_over_episodes_are_not_found_on_the_same_memory():
    found = targets(planted(signal=12.0), "shuffled")
    assert abs(found.value.mean() - 1 / 3) < 0.08 and (found.bits < 0.1).all()
    assert (found.low < found.chance).sum() >= 6, "95 % intervals, of which one in 7 may miss"


def test_noise_is_at_chance_and_tells_nothing():
    found = targets(planted())
    assert abs(found.value.mean() - 1 / 3) < 0.08
    assert found.bits.mean() < 0 and (found.bits < 0.1).all()
    assert np.allclose(found.chance, 1 / 3)


@pytest.mark.slow
def test_noise_tells_no_time():
    table = frame(planted(episodes=60))
    for name in ("phase", "steps since cue"):
        ticks = curve(table, name)
        assert ticks.bits.mean() < 0.05 and abs(ticks.value.mean() - ticks.chance.mean()) < 0.1


def test_no_episode_helps_to_predict_itself():
    """A memory that names its episode, with labels that nothing tells, is at chance in whatever is pooled over ticks;
    ticks dealt to folds one by one would be predicted perfectly."""
    rng, episodes, ticks = np.random.default_rng(0), 60, 6
    names = np.repeat(rng.normal(size=(episodes, 40)), ticks, axis=0)
    labels = np.repeat(rng.integers(2, size=episodes), ticks)
    folds = episode_folds(labels[::ticks], 7)
    found = held_out(names, labels, np.repeat(folds, ticks))
    assert abs(found.right.mean() - 0.5) < 0.2 and found.bits.mean() < 0.1
    leaking = held_out(names, labels, rng.integers(FOLDS, size=len(labels)))
    assert leaking.right.mean() > 0.95, "which is what the folds are for"


def test_folds_hold_whole_episodes_of_every_class():
    labels = np.arange(100) % 3
    folds = episode_folds(labels, 7)
    assert np.array_equal(np.bincount(folds), [20] * FOLDS)
    assert all(np.ptp(np.bincount(folds[labels == one], minlength=FOLDS)) <= 1 for one in range(3))
    assert np.array_equal(folds, episode_folds(labels, 7)) and not np.array_equal(folds, episode_folds(labels, 8))


def test_fewer_numbers_are_the_same_probe():
    """What is done where a memory has more numbers than there are samples does not move a prediction."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    near, far, labels = rng.normal(size=(40, 200)), rng.normal(size=(15, 200)), np.arange(40) % 3
    near[:, :3] += 2 * np.eye(3)[labels]
    small, same = decoders._rotated(near, far)
    assert small.shape == (40, 40) and same.shape == (15, 40)
    for strength in decoders.CS[:3]:
        probe = LogisticRegression(C=strength, tol=1e-8, max_iter=5000)
        full = probe.fit(near, labels).predict_proba(far)
        np.testing.assert_allclose(probe.fit(small, labels).predict_proba(same), full, atol=1e-4)
    constant = decoders._rotated(np.zeros((4, 9)), np.zeros((2, 9)))
    assert constant[0].shape == (4, 1) and constant[1].shape == (2, 1)


def test_the_regulariser_is_chosen_without_the_held_out_fold(monkeypatch):
    """Whatever stands in fold 0 leaves what is chosen for it as it was."""
    rng = np.random.default_rng(0)
    features, labels, folds = rng.normal(size=(60, 5)), np.arange(60) % 2, np.arange(60) % FOLDS
    chosen = []
    best = decoders._best
    monkeypatch.setattr(decoders, "_best", lambda *given: chosen.append((given, best(*given))) or chosen[-1][1])
    held_out(features, labels, folds)
    features[folds == 0] = 1e6
    held_out(features, labels, folds)
    (before, _), (after, _) = chosen[0], chosen[FOLDS]
    for one, other in zip(before[0], after[0], strict=True):
        assert np.array_equal(one.near, other.near) and np.array_equal(one.far, other.far)
    assert chosen[0][1] == chosen[FOLDS][1]
    assert before[0][0].near.shape == (36, 5) and before[0][0].far.shape == (12, 5), "3 folds learn, one chooses"


@pytest.mark.slow
def test_a_task_that_tells_the_identity_apart_has_both():
    table = frame(planted(signal=12.0, episodes=60, identity=lambda seed: (seed // 3) % 2))
    assert curve(table, "target").loc[2].value == 1 and curve(table, "identity").loc[2].value < 0.8
    assert set(table.curve) == {
        name + control
        for name in ("target", "identity", "phase", "steps since cue")
        for control in ("", ", labels shuffled")
    }


@pytest.mark.slow
def test_a_clock_is_read_as_phase_and_steps_since_cue():
    rng = np.random.default_rng(0)
    clock = np.eye(LENGTH).reshape(LENGTH, 1, LENGTH) * 8
    table = frame([episode(s, s % 3, clock + rng.normal(size=clock.shape) * 0.3) for s in range(40)])
    for name in ("phase", "steps since cue"):
        assert (curve(table, name).value == 1).all() and (curve(table, name).bits > 0.5).all()
    assert curve(table, "steps since cue").bits.mean() == pytest.approx(2.52, abs=0.2), (
        "log2(7) less the pooled first two"
    )
    assert curve(table, "phase, labels shuffled").value.mean() < 0.6


def test_classes_of_steps_double():
    found = since_classes(np.array([-3, -1, 0, 1, 4, 5, 8, 9, 16, 17, 32, 33]))
    assert found.tolist() == [-1, -1, 0, 1, 4, 5, 5, 6, 6, 7, 7, 8]


def test_every_fold_of_every_probe_heeds_a_stop():
    traces, asked = planted(episodes=40, classes=2), []
    ticks = Ticks.of(traces)

    def check_stop():
        asked.append(None)
        if len(asked) > FOLDS + 1:
            raise Interrupted

    with pytest.raises(Interrupted):
        list(decoders._of_episodes(ticks, "target", ticks.labels["target"], "none", check_stop))
    assert len(asked) == FOLDS + 2, "in the second step's second fold"
    with pytest.raises(Interrupted):
        list(decoders._of_ticks(ticks, "phase", ticks.phase, "none", check_stop))
    assert len(asked) == FOLDS + 3


def test_steps_with_few_episodes_have_no_value():
    episodes = planted(signal=12.0, episodes=40)
    for one in episodes[15:]:
        object.__setattr__(one, "step", one.step[:-1])
        object.__setattr__(one, "phase", one.phase[:-1])
        object.__setattr__(one, "written", {"tokens": one.written["tokens"][:-1]})
    found = targets(episodes)
    assert found.loc[4].n == 15 and np.isnan(found.loc[4].value) and found.loc[3].value == 1
    rare = targets(planted(episodes=40, classes=8))
    assert rare.value.isna().all() and (rare.n == 40).all(), "five of each class"


def test_without_a_cue_or_with_few_episodes_there_is_one_error():
    for few in (planted(episodes=19), [episode(s, 0, np.zeros((LENGTH, 1, 2)), cue=False) for s in range(40)]):
        with pytest.raises(MuvlaError) as refused:
            Ticks.of(few)
        assert refused.value.field == "probe decoders"


@pytest.mark.slow
def test_a_constant_memory_tells_nothing():
    table = frame([episode(s, s % 3, np.ones((LENGTH, 2, 30))) for s in range(60)])
    found = table[table.control == "none"]
    assert found.groupby("label").bits.mean().abs().max() < 0.05
    assert np.allclose(curve(table, "target").value, 1 / 3, atol=0.1)


def unchanging(targets, decisions):
    """Episodes of 12 ticks of a memory that never changes: a cue of two, a delay, the decision from that step on."""
    for seed, (target, decision) in enumerate(zip(targets, decisions, strict=True)):
        phases = [Phase.CUE] * 2 + [Phase.DELAY] * (decision - 2) + [Phase.DECISION] * (12 - decision)
        memory = np.ones((12, 1, 3), np.float32)
        yield Trace(
            seed, {"tokens": memory}, memory, np.arange(12), np.array(phases), {"target": target}, {"cue_end": 1}, {}
        )


def test_chance_is_what_a_constant_answer_gets_at_each_step():
    """Of a label of ticks it is the most frequent of all ticks, right at the share of each step's ticks that have it;
    of one of episodes, the most frequent there. A memory that tells nothing is at the line."""
    made = list(unchanging([0, 1] * 10 + [0] * 20, [4] * 30 + [6] * 10))
    phase, since, target = times(made), times(made, "steps since cue"), targets(made)
    assert phase.chance.tolist() == [0] * 4 + [0.75] * 2 + [1] * 6, "a quarter decides two steps later"
    assert since.chance.tolist() == [0] * 6 + [1] * 4 + [0] * 2, "the class of 5-8"
    assert (target.chance == 0.75).all()
    for found in (phase, since, target):
        assert list(found.index) == list(range(-1, 11)) and np.array_equal(found.value, found.chance)


@pytest.mark.slow
def test_the_frame_has_the_columns_that_the_reading_names():
    one, table = get_measurement("decoders"), frame(planted(episodes=30))
    assert set(one.columns) <= set(table) and one.id == "decoders@2"
    assert not table.duplicated([one.curve, one.x]).any()
