"""The data side of MemoryVLA and CogACT against the published loader: chunk targets, scales and groups of frames."""

import numpy as np
import pytest
import torch

from helpers.golden import FLOAT32, load_golden
from muvla.config.serialization import replace
from muvla.data.normalization import Statistics
from muvla.data.stream import SlotStream
from muvla.memory.registry import MECHANISMS
from muvla.training.trainer import Trainer

CHUNK, GROUP = 16, 16
PADDED = {"data.order": "grouped", "data.group": 4, "data.group_padding": "repeat"}
# A dimension of one value. The published loader gives 0 in an episode and -1 past its end; here -1 stands in both.
CONSTANT = 3


class Episodes:
    """Demonstrations in memory, as a stream and statistics read them; the last dimension is not scaled."""

    knows_executed, pass_through, sha256 = False, (6,), "0" * 64

    def __init__(self, actions):
        self.lengths = np.array([len(of_episode) for of_episode in actions])
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.frames = int(self.lengths.sum())
        self.index = [{"instruction": "pick up the mug"}] * len(actions)
        joined = np.concatenate(actions)
        self._columns = {"recorded_action": joined, "proprio": np.zeros((len(joined), 1), np.float32)}
        self._columns["phase"] = np.zeros(len(joined), np.int64)
        self._columns["images"] = np.zeros((len(joined), 1, 1, 1, 3), np.uint8)

    @property
    def parts(self):
        return (self,)

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, name):
        return self._columns[name]


@pytest.fixture(scope="module")
def golden():
    return load_golden("memoryvla/f_data")


@pytest.fixture(scope="module")
def episodes(golden):
    return Episodes([golden.tensors[f"raw.episode{i}.action"].numpy() for i in range(6)])


def _stream(episodes, base, **changes):
    data = replace(base.data, {"labels": "recorded", "tail": "still", **changes})
    encode = lambda texts: (torch.zeros(len(texts), 1, dtype=torch.int64), torch.ones(len(texts), dtype=torch.int64))  # noqa: E731
    statistics = Statistics.from_store(episodes, data.statistics)
    return SlotStream(episodes, data, statistics, encode, slots=1, chunk=CHUNK, seed=0)


def test_the_scales_are_the_published_quantiles(golden, episodes):
    published = golden.about["dataset_statistics"]["action"]
    statistics = Statistics.from_store(episodes, "recorded")
    np.testing.assert_allclose(statistics.action_low, published["q01"], atol=1e-6)
    np.testing.assert_allclose(statistics.action_high, published["q99"], atol=1e-6)
    assert list(statistics.action_mask) == published["mask"]


def test_chunk_targets_agree_past_the_end_too(golden, episodes, base):
    """No motion, not clipped, and the gripper's last value."""
    window = _stream(episodes, base).window(2 * episodes.frames)
    compared = set()
    for t, (episode, step) in enumerate(zip(window.episode[:, 0], window.tick[:, 0], strict=True)):
        expected = golden.tensors[f"stream.episode{episode}.action"][step].clone()
        assert set(expected[:, CONSTANT].tolist()) <= {0.0, -1.0}
        expected[:, CONSTANT] = -1
        torch.testing.assert_close(window.label[t, 0], expected, rtol=0, atol=FLOAT32)
        assert golden.tensors[f"stream.episode{episode}.timestep"][step] == step
        compared.add((int(episode), int(step)))
    assert len(compared) == episodes.frames


def test_the_normalised_actions_agree(golden):
    about = golden.about["norm_stats"]
    statistics = Statistics.from_release({"action": about, "proprio": about})
    got = statistics.normalise_action(golden.tensors["norm.in.action"].numpy())
    expected = golden.tensors["norm.bounds_q99.action"].numpy()
    varies = [i for i in range(7) if about["min"][i] != about["max"][i]]
    assert len(varies) == 6
    np.testing.assert_allclose(got[:, varies], expected[:, varies], rtol=0, atol=FLOAT32)


@pytest.mark.parametrize(("name", "mask"), [("w1f15", (True,) * 6 + (False,)), ("w1f15_noabs", (True,) * 7)])
def test_a_robot_that_does_not_move_agrees(golden, name, mask):
    """On actions that are normalised already: only the entries past the end change."""
    about, actions = golden.about["chunk_stats"], golden.tensors["chunk.in.action"].numpy()
    statistics = Statistics(tuple(about["q01"]), tuple(about["q99"]), (0.0,), (1.0,), mask, "")
    expected = golden.tensors[f"chunk.{name}.action"].numpy()
    still = statistics.normalise_still(actions[-1])
    for step in range(len(actions)):
        rows = [actions[i] if i < len(actions) else still for i in range(step, step + CHUNK)]
        np.testing.assert_allclose(expected[step], rows, rtol=0, atol=FLOAT32)


def test_groups_are_those_of_the_published_loader(golden, episodes, base):
    """Whole short episodes with their last frame repeated, and sorted uniform subsets of long episodes."""
    stream = _stream(episodes, base, order="grouped", group=GROUP, group_padding="repeat")
    visits = 900
    window = stream.window(visits * GROUP)
    ticks, played = window.tick.reshape(visits, GROUP), window.episode.reshape(visits, GROUP)
    first = window.is_first.reshape(visits, GROUP)
    assert (played == played[:, :1]).all() and first[:, 0].all() and not first[:, 1:].any()
    for length in (1, 5, 16):
        rows = ticks[episodes.lengths[played[:, 0]] == length]
        assert len(rows) and (rows == golden.tensors[f"group.picks.length{length}"].numpy()).all()
    for length in (17, 40):
        rows = ticks[episodes.lengths[played[:, 0]] == length]
        share = np.bincount(rows.ravel(), minlength=length) / len(rows)
        assert (np.diff(rows, axis=1) > 0).all() and len({tuple(row) for row in rows}) > 1
        deviation = (GROUP / length * (1 - GROUP / length) / len(rows)) ** 0.5
        assert (np.abs(share - GROUP / length) < 5 * deviation).all()
        theirs = golden.tensors[f"group.picks_seeded42.length{length}"].numpy()
        assert (np.diff(theirs, axis=1) > 0).all() and theirs.shape[1] == GROUP


@pytest.mark.parametrize("mechanism", MECHANISMS.names())
def test_both_orders_train_every_mechanism_and_differ(store, base, mechanism):
    """Under `grouped` a window is a whole group, so every window starts a new memory; under `episodic` it goes on."""
    frames = {"memory.frame_tokens": 8} if mechanism in ("first_frame", "frame_stack") else {}
    budget = {"budget.window": 4, "truncation": 4, "budget.slots": 2, "model.memory_positions": "shift"}
    cell = replace(base, {"memory.kind": mechanism, **budget, **frames})
    losses = {}
    for name, changes in {"stream": {}, "group": PADDED}.items():
        trainer = Trainer(replace(cell, changes), store)
        losses[name] = trainer.step()[0]
        windows = [trainer.stream.window(4) for _ in range(2)]
        assert all(bool(window.is_first[0].all()) for window in windows) == (name == "group")
        assert name == "stream" or not any(bool(window.is_first[1:].any()) for window in windows)
    assert losses["stream"] != losses["group"]


def test_padding_repeats_the_last_frame_and_none_does_not(store, base):
    """A group longer than every episode: whole episodes, with or without repeated frames."""
    longest = int(store.lengths.max())
    cell = replace(base, {"data.order": "grouped", "data.group": longest + 2})
    plain, padded = (Trainer(replace(cell, {"data.group_padding": p}), store) for p in ("none", "repeat"))
    rows = padded.stream.window(3 * (longest + 2)).tick.reshape(3, longest + 2, -1)
    assert (rows[:, -1] == rows[:, -2]).all() and (rows[:, -2] == rows[:, -3]).all()
    window = plain.stream.window(3 * (longest + 2))
    assert not (window.frame[1:] == window.frame[:-1]).any()
