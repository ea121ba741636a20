"""Slots: consecutive frames, labels, weights, pairing between cells, exact resume."""

import itertools

import numpy as np
import pytest
import torch

from muvla.config import dummy, no_memory, tbptt
from muvla.config.serialization import replace
from muvla.envs.phases import NO_OP_PHASES, Phase
from muvla.errors import MuvlaError
from muvla.training.trainer import Trainer


def stream_of(cell, store):
    return Trainer(cell, store).stream


def windows(cell, store, n=6):
    stream = stream_of(cell, store)
    return [stream.window(cell.budget.window) for _ in range(n)]


def joined(parts, name):
    return np.concatenate([np.asarray(getattr(w, name)) for w in parts])


def test_slot_i_at_the_next_tick_is_the_next_frame_of_slot_i(store, base):
    parts = windows(base, store)
    episode, tick, first = joined(parts, "episode"), joined(parts, "tick"), joined(parts, "is_first")
    lengths = store.lengths
    for slot in range(4):
        for t in range(1, len(tick)):
            same = episode[t, slot] == episode[t - 1, slot] and tick[t, slot] == tick[t - 1, slot] + 1
            ended = tick[t - 1, slot] == lengths[episode[t - 1, slot]] - 1
            assert same != ended
            assert first[t, slot] == ended
    assert first[0].all(), "the first tick starts every memory, also in the middle of an episode"
    image = np.asarray(parts[2].images[3, 1]).transpose(0, 2, 3, 1)
    frame = store.starts[episode[19, 1]] + tick[19, 1]
    assert np.array_equal(image, store["images"][frame])


def test_slots_start_at_random_offsets(store, base):
    starts = windows(replace(base, {"budget.slots": 32}), store, 1)[0].tick[0]
    assert len(set(starts.tolist())) > 3


def test_every_episode_is_played_once_before_any_is_played_again(store, base):
    stream = stream_of(base, store)
    episode, _, _ = stream.schedule(int(store.lengths.sum()))
    for slot in range(4):
        changes = np.flatnonzero(np.diff(episode[:, slot])) + 1
        played = episode[np.concatenate([[0], changes]), slot][: len(store)]
        assert len(set(played.tolist())) == len(played)


@pytest.mark.parametrize("order", ["episodic", "grouped", "shuffled"])
def test_demonstrations_end_with_the_declared_step_of_their_decision(store, base, order):
    """Every frame up to that step is played once before any is played again, and labels reach past the cut."""
    cell = replace(base, no_memory() | {"data.decision_steps": 2, "data.order": order, "data.group": 1000})
    decision = np.array([line["cue_length"] + line["delay_length"] for line in store.index])
    played = np.minimum(store.lengths, decision + 2)
    assert (played < store.lengths).any()
    stream = stream_of(cell, store)
    episode, step, visit = stream.schedule(2 * int(played.sum()))
    assert (step < played[episode]).all()
    whole = visit[:, 0] > 0 if order != "shuffled" else np.ones(len(visit), bool)
    pairs = list(zip(episode[whole, 0].tolist(), step[whole, 0].tolist(), strict=True))[: int(played.sum()) - 60]
    assert len(set(pairs)) == len(pairs)
    window = next(
        w for w in iter(lambda: stream.window(8), None) if (w.is_last & (w.tick < store.lengths[w.episode] - 1)).any()
    )
    cut = window.is_last & (window.tick < store.lengths[window.episode] - 1)
    assert window.weight[torch.from_numpy(cut)].all(), "the entry behind the cut is a real action"


def test_a_cut_of_demonstrations_needs_known_phases(store, base, monkeypatch):
    monkeypatch.setattr(type(store), "knows_executed", property(lambda self: False))
    with pytest.raises(MuvlaError) as info:
        stream_of(replace(base, {"data.decision_steps": 2, "data.labels": "recorded"}), store)
    assert info.value.field == f"{store.name}: data.decision_steps"


@pytest.mark.parametrize(
    "change", [no_memory(), tbptt(1, 4), tbptt(2, 2), {"memory.alpha": 0.1}, {"model.guard": "full"}], ids=str
)
def test_cells_of_one_seed_see_the_same_frames_in_the_same_order(store, base, change):
    """Whatever m, K or rule: bit-identical inputs, targets and weights."""
    for a, b in zip(windows(base, store), windows(replace(base, change), store), strict=True):
        for name in ("images", "proprio", "text_ids", "label", "weight", "is_first"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert np.array_equal(a.episode, b.episode)


def test_slots_passes_and_seeds_have_orders_and_offsets_of_their_own(store, base):
    ticks = int(store.lengths.sum()) * 3
    episode, _, visit = stream_of(base, store).schedule(ticks)

    def order(slot, number):
        of_slot = dict(zip(visit[:, slot].tolist(), episode[:, slot].tolist(), strict=True))
        return [of_slot[number * len(store) + i] for i in range(len(store))]

    orders = [tuple(order(slot, number)) for slot in range(4) for number in range(2)]
    assert len(set(orders)) == 8 and {tuple(sorted(o)) for o in orders} == {tuple(range(len(store)))}
    many = replace(base, {"budget.slots": 32})
    offsets = [tuple(windows(replace(many, {"seed": s}), store, 1)[0].tick[0].tolist()) for s in (0, 1)]
    assert offsets[0] != offsets[1]


SHUFFLED = no_memory() | {"data.order": "shuffled"}


def test_shuffled_slots_play_every_frame_once_before_any_again(store, base):
    """Whatever the slot's neighbour in time was: and every frame is a memory's first."""
    frames = int(store.lengths.sum())
    stream = stream_of(replace(base, SHUFFLED), store)
    window = stream.window(2 * frames)
    assert window.is_first.all() and window.episode.max() == len(store) - 1
    assert np.array_equal(window.frame, store.starts[window.episode] + window.tick)
    passes = [tuple(window.frame[n * frames : (n + 1) * frames, slot]) for slot in range(4) for n in range(2)]
    assert {tuple(sorted(order)) for order in passes} == {tuple(range(frames))} and len(set(passes)) == 8
    assert np.mean(np.diff(window.frame, axis=0) == 1) < 0.05, "neighbours in time are no neighbours in the episode"
    other = stream_of(replace(base, SHUFFLED | {"seed": 1}), store).window(8)
    assert not np.array_equal(other.frame, window.frame[:8])


GROUPED = {"data.order": "grouped", "data.group": 4}


def test_a_group_is_frames_of_one_episode_in_their_order_and_others_at_every_visit(store, base):
    """At most 4 of an episode's, a memory's first among them being its first; a shorter episode is played whole."""
    ticks = 4 * len(store) * 12
    window = stream_of(replace(base, GROUPED), store).window(ticks)
    whole = stream_of(base, store).schedule(ticks)[0]
    assert np.array_equal(window.frame, store.starts[window.episode] + window.tick)
    subsets: dict[int, list] = {}
    for slot in range(4):
        starts = np.flatnonzero(window.is_first[:, slot])
        for a, b in itertools.pairwise(starts[1:]):  # without the first, which began at a random frame
            (episode,), steps = set(window.episode[a:b, slot].tolist()), window.tick[a:b, slot]
            assert len(steps) == min(4, store.lengths[episode]) and (np.diff(steps) > 0).all()
            subsets.setdefault(episode, []).append(tuple(steps.tolist()))
        order = window.episode[np.flatnonzero(window.is_first[:, slot]), slot][: len(store)]
        assert sorted(order.tolist()) == list(range(len(store))), "every episode once before any again"
        assert order[:2].tolist() == list(dict.fromkeys(whole[:, slot].tolist()))[:2], "in the episodic cells' order"
    assert len(subsets) == len(store)
    for episode, drawn in subsets.items():
        assert (len(set(drawn)) > 1) == (store.lengths[episode] > 4)
    first = [steps[0] for drawn in subsets.values() for steps in drawn]
    assert 0 in first and max(first) > 0, "a group may miss the cue"


def test_groups_that_hold_every_episode_are_the_episodic_order(store, base):
    large = replace(base, GROUPED | {"data.group": int(store.lengths.max())})
    for a, b in zip(windows(base, store), windows(large, store), strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.is_first, b.is_first)


def test_shuffled_baselines_share_frames_and_the_episodic_cells_data(store, base):
    """none and dummy see the same frames; a frame is what it is to an episodic cell, tail and statistics included."""
    cell = replace(base, SHUFFLED | {"model.chunk": 4})
    none, dummies = windows(cell, store), windows(replace(cell, dummy(4)), store)
    for a, b in zip(none, dummies, strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.label, b.label)
    assert Trainer(cell, store).statistics == Trainer(base, store).statistics
    of_frame = {}
    for window in windows(replace(base, {"model.chunk": 4}), store, int(store.lengths.sum()) // 4):
        for at in np.ndindex(window.frame.shape):
            of_frame[window.frame[at]] = (
                window.images[at],
                window.proprio[at],
                window.label[at],
                window.weight[at],
                window.text_ids[at],
            )
    assert len(of_frame) == store.lengths.sum()
    for window in none:
        for at in np.ndindex(window.frame.shape):
            own = (window.images[at], window.proprio[at], window.label[at], window.weight[at], window.text_ids[at])
            assert all(torch.equal(a, b) for a, b in zip(own, of_frame[window.frame[at]], strict=True))


def test_label_variants_share_inputs_and_order(store, base):
    for labels in ("recorded", "masked"):
        for a, b in zip(windows(base, store), windows(replace(base, {"data.labels": labels}), store), strict=True):
            assert torch.equal(a.images, b.images) and torch.equal(a.proprio, b.proprio)


def test_the_training_seed_changes_the_order(store, base):
    a, b = windows(base, store, 2), windows(replace(base, {"seed": 1}), store, 2)
    assert not np.array_equal(joined(a, "episode"), joined(b, "episode"))


def expected_entry(store, statistics, episode, tick, i, labels, tail):
    """Target and weight of chunk entry t+i from the definition."""
    start, length = store.starts[episode], store.lengths[episode]
    inside = tick + i < length
    frame = start + min(tick + i, length - 1)
    executed = store["phase"][frame] not in [int(p) for p in NO_OP_PHASES]
    action = store["executed_action" if labels == "executed" else "recorded_action"][frame]
    weight = float((inside or tail == "repeat") and (labels != "masked" or executed))
    return statistics.normalise_action(np.asarray(action)[None])[0], weight


@pytest.mark.parametrize("labels", ["executed", "recorded", "masked"])
@pytest.mark.parametrize("tail", ["mask", "repeat"])
def test_labels_and_tail_hold_per_chunk_entry(store, base, labels, tail):
    cell = replace(base, {"model.chunk": 4, "data.labels": labels, "data.tail": tail})
    trainer = Trainer(cell, store)
    window = trainer.stream.window(8)
    for t in range(8):
        for slot in range(4):
            for i in range(4):
                target, weight = expected_entry(
                    store, trainer.statistics, window.episode[t, slot], window.tick[t, slot], i, labels, tail
                )
                assert np.allclose(window.label[t, slot, i], target)
                assert window.weight[t, slot, i] == weight
                inside = window.tick[t, slot] + i < store.lengths[window.episode[t, slot]]
                assert window.action_is_pad[t, slot, i] == (not inside)
                executed = inside and store.is_executed[window.frame[t, slot] + i]
                assert window.label_is_executed[t, slot, i] == executed
            assert window.is_last[t, slot] == (window.tick[t, slot] == store.lengths[window.episode[t, slot]] - 1)


def test_recorded_labels_of_no_op_frames_reveal_the_target_and_executed_ones_do_not(store, base):
    """The confound itself (spec 4.4): the first label of a delay frame against the episode's target."""
    seen = {}
    for labels in ("executed", "recorded"):
        by_target: dict[int, set] = {}
        for window in windows(replace(base, {"data.labels": labels, "model.chunk": 1}), store, 12):
            for t, slot in zip(*np.where(window.phase == Phase.DELAY), strict=True):
                target = store.index[window.episode[t, slot]]["target"]
                by_target.setdefault(target, set()).add(tuple(window.label[t, slot, 0].round(decimals=1).tolist()))
        seen[labels] = by_target
    assert len(set.union(*seen["executed"].values())) == 1
    assert set.intersection(*seen["recorded"].values()) == set()


@pytest.mark.parametrize("change", [{}, SHUFFLED, GROUPED], ids=["episodic", "shuffled", "grouped"])
def test_a_stream_continues_exactly_where_it_was_saved(store, base, change):
    cell = replace(base, change)
    whole = windows(cell, store, 6)
    first, second = stream_of(cell, store), stream_of(cell, store)
    for _ in range(3):
        first.window(8)
    second.load_state(first.state())
    for i in range(3, 6):
        window = second.window(8)
        assert torch.equal(window.images, whole[i].images) and torch.equal(window.is_first, whole[i].is_first)


def test_cursors_of_another_budget_are_refused(store, base):
    state = stream_of(replace(base, {"budget.slots": 2}), store).state()
    with pytest.raises(MuvlaError) as info:
        stream_of(base, store).load_state(state)
    assert info.value.field == "stream state"
