"""The adaptive ensemble against published numbers, in episodes, and its protocols' refusals; JPEG compression."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.golden import load_golden
from muvla.envs.registry import make_env
from muvla.errors import MuvlaError
from muvla.evaluation.action_chunks import ChunkFile
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.ensemble import combine_chunks, combine_predictions, threshold_gripper
from muvla.evaluation.jpeg import compress
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.protocol import chance, unbounded
from muvla.evaluation.recorder import Recorder
from muvla.evaluation.rollout import Rollout

BASE = get_protocol("recall-position3-rh@1")
SHORT = replace(BASE, name="short", episodes=2, slots=2, step_limit=8)
ENSEMBLE = replace(SHORT, regime="ensemble", horizon=3, alpha=0.7)
RESET, STEPS = 9, 13  # of the published run


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_ensemble_agrees_with_the_published_class(dtype):
    golden = load_golden("memoryvla/d_adaptive_ensemble")
    assert golden.about["reset_before_step"] == [RESET]
    chunks = golden.tensors["in.chunks"].numpy().astype(dtype)
    starts = [0] * RESET + [RESET] * (STEPS - RESET)
    for horizon in (1, 2, 7):
        for alpha in (0.0, 0.1, 1.0):
            rows = [
                combine_chunks(chunks[max(start, t + 1 - horizon) : t + 1], alpha) for t, start in enumerate(starts)
            ]
            golden.compare(f"horizon{horizon}.alpha{alpha}", torch.from_numpy(np.stack(rows)))
    single = chunks[:, 0]
    rows = [combine_predictions(single[max(0, t - 2) : t + 1], 0.1) for t in range(STEPS)]  # without a reset
    golden.compare("single_actions.horizon3.alpha0.1", torch.from_numpy(np.stack(rows)))


class Executed(Recorder):
    """The actions of every episode, in the order of its steps."""

    def __init__(self):
        self.actions = {}

    def before_step(self, episode):
        self.actions.setdefault(episode.seed, []).append(episode.next_action)


def _run(trained, protocol, tmp_path=None):
    actor, executed = PolicyActor(trained.policy, trained.statistics, protocol), Executed()
    recorders = [executed] if tmp_path is None else [executed, ChunkFile(tmp_path, "chunks")]
    with closing(Rollout(actor, lambda: make_env(protocol.task), recorders)) as rollout:
        rollout.run(range(protocol.seed, protocol.seed + protocol.episodes))
    return executed.actions, actor


def test_every_step_queries_and_executes_the_mean_of_the_last_chunks(trained, tmp_path):
    """The memory is written at every step; an episode's first steps have fewer chunks."""
    executed, actor = _run(trained, ENSEMBLE, tmp_path)
    stored = ChunkFile(tmp_path, "chunks").read()
    assert actor.ticks >= max(map(len, executed.values()))
    for seed, actions in executed.items():
        chunks = [trained.statistics.unnormalise_action(chunk) for _, chunk in sorted(stored[seed].items())]
        assert len(chunks) == len(actions) > 3
        for t, action in enumerate(actions):
            expected = combine_chunks(chunks[max(0, t - 2) : t + 1], 0.7)
            np.testing.assert_allclose(action, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "changes", [{"regime": "receding", "horizon": 1, "alpha": 0.1}, {"horizon": 2}, {"alpha": -9.0}]
)
def test_every_field_of_an_ensemble_bites(trained, changes):
    plain, other = _run(trained, ENSEMBLE)[0], _run(trained, replace(ENSEMBLE, **changes))[0]
    assert any(not np.array_equal(a, b) for seed in plain for a, b in zip(plain[seed], other[seed], strict=False))


@pytest.mark.parametrize(
    ("mask", "outputs", "expected"),
    [
        ((True, False), "clipped", [[0.3, 1], [0.6, 0]]),
        ((True, False), "binary", [[0.3, 1], [0.6, 0]]),
        ((True, True), "clipped", None),
        ((True, False), "open", None),
    ],
)
def test_an_experts_gripper_is_open_or_closed_before_an_ensemble(mask, outputs, expected):
    chunk = np.array([[0.3, 0.5], [0.6, 0.4]], dtype=np.float32)
    result = threshold_gripper(chunk, mask, outputs)
    np.testing.assert_array_equal(result, chunk if expected is None else np.array(expected, dtype=np.float32))


def test_an_episode_thresholds_before_it_averages(trained, monkeypatch):
    thresholded = []
    monkeypatch.setattr(
        "muvla.evaluation.policy_actor.threshold_gripper",
        lambda chunk, mask, outputs: thresholded.append(outputs) or np.zeros_like(chunk),
    )
    executed, _ = _run(trained, ENSEMBLE)
    assert thresholded and not np.any(np.concatenate([action for actions in executed.values() for action in actions]))


@pytest.mark.parametrize("horizon", [5, 16])
def test_an_ensemble_of_more_chunks_than_a_chunk_has_actions_is_refused(trained, horizon):
    with pytest.raises(MuvlaError) as info:
        PolicyActor(trained.policy, trained.statistics, replace(ENSEMBLE, horizon=horizon))
    assert info.value.field == "protocol.horizon"


def test_chunks_of_one_action_have_no_ensemble(subject_of, cell_with):
    """Whatever the horizon, because an ensemble combines two chunks at least."""
    subject = subject_of(cell_with({"model.chunk": 1}))
    with pytest.raises(MuvlaError) as info:
        PolicyActor(subject.policy, subject.statistics, replace(ENSEMBLE, horizon=2))
    assert info.value.field == "protocol.horizon"


@pytest.mark.parametrize("clock", ["step", "call"])
def test_the_clock_gives_the_memory_steps_or_queries(trained, monkeypatch, clock):
    """They differ where the memory ticks once per query; the entries of a bank get the given time."""
    given, tick = [], type(trained.recurrence).tick

    def note(recurrence, encoded, is_first, moment, *rest, **options):
        given.append(recurrence._clock(is_first, moment, None).step[0].item())
        return tick(recurrence, encoded, is_first, moment, *rest, **options)

    monkeypatch.setattr(type(trained.recurrence), "tick", note)
    open_loop = replace(SHORT, slots=1, episodes=1, regime="open_loop", h=2, tick="call", clock=clock)
    _run(trained, open_loop)
    assert given[:3] == ([0, 2, 4] if clock == "step" else [0, 1, 2])


def test_no_chance_bounds_an_ensemble():
    """A chunk that was predicted while the cue was visible still acts at the decision."""
    assert chance(BASE) is not None and chance(ENSEMBLE) is None and "chunks" in unbounded(ENSEMBLE)


def test_jpeg_changes_the_policys_images_and_nothing_else(trained):
    plain, compressed = _run(trained, SHORT)[0], _run(trained, replace(SHORT, jpeg=5))[0]
    assert any(not np.array_equal(a, b) for seed in plain for a, b in zip(plain[seed], compressed[seed], strict=False))
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    errors = [np.abs(compress(image, quality).astype(int) - image).mean() for quality in (5, 50, 95)]
    assert errors[0] > errors[1] > errors[2] > 0
