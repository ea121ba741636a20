"""The contracts of actors and recorders, and the rollout that joins them."""

from dataclasses import fields, replace

import numpy as np
import pytest

from muvla.config import TaskConfig
from muvla.envs.registry import make_env
from muvla.errors import MuvlaError
from muvla.evaluation.action_chunks import ChunkFile
from muvla.evaluation.actor import Actor
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.context import EvaluationContext
from muvla.evaluation.evaluate import EvaluationRequest, evaluate, evaluate_policy
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.prefix_cache import PrefixCache
from muvla.evaluation.recorder import Recorder
from muvla.evaluation.replay import StepRecorder
from muvla.evaluation.rollout import Rollout
from muvla.interventions import parse_intervention

TASK = TaskConfig("RecallPosition3-v0", cue=(1, 1), delay=(1, 1))
SHORT = replace(get_protocol("recall-position3-rh@1"), name="short", task=TASK, episodes=8, slots=4)
SEEDS = range(SHORT.seed, SHORT.seed + SHORT.episodes)


class Events(Recorder):
    """Records the names of the callbacks, by seed."""

    def __init__(self):
        self.by_seed = {}

    def episode_begins(self, episode):
        assert episode.observation is None and episode.step == 0
        self.by_seed[episode.seed] = ["begins"]

    def after_tick(self, tick):
        assert tick.chunk.shape == (4, 2) and tick.read.shape == tick.written["tokens"].shape
        self.by_seed[tick.episode.seed].append("tick")

    def before_step(self, episode):
        self.by_seed[episode.seed].append(f"before {episode.step}")

    def after_step(self, episode):
        self.by_seed[episode.seed].append(f"after {episode.step}")

    def episode_ends(self, episode, outcome):
        assert episode.step == outcome.info["steps"]
        self.by_seed[episode.seed].append("ends")


class Still(Actor):
    """A stranger's actor: it never moves."""

    closed = False

    def needs_query(self, episode):
        return episode.chunk is None

    def act(self, episodes, ready):
        for episode in ready:
            episode.chunk, episode.chunk_age = np.zeros((1, 2), np.float32), 0
        return []

    def close(self):
        self.closed = True


def run(actor, recorders=()):
    outcomes = {}
    rollout = Rollout(actor, lambda: make_env(TASK), recorders)
    rollout.run(SEEDS, lambda outcome: outcomes.update({outcome.seed: outcome}))
    rollout.close()
    return outcomes


@pytest.mark.parametrize("regime", [{}, {"regime": "open_loop", "h": 4, "tick": "call"}], ids=["receding", "open loop"])
def test_a_recorder_is_called_in_the_order_of_the_episode(trained, regime):
    events, protocol = Events(), replace(SHORT, **regime)
    outcomes = run(PolicyActor(trained.policy, trained.statistics, protocol), [events])
    for seed, outcome in outcomes.items():
        expected = ["begins"]
        for step in range(outcome.info["steps"]):
            expected += ["tick"] if step % protocol.h == 0 else []
            expected += [f"before {step}", f"after {step + 1}"]
        assert events.by_seed[seed] == [*expected, "ends"]


def test_recorders_change_no_outcome(trained):
    plain = run(PolicyActor(trained.policy, trained.statistics, SHORT))
    watched = run(PolicyActor(trained.policy, trained.statistics, SHORT), [Events(), StepRecorder()])
    assert {seed: o.info for seed, o in plain.items()} == {seed: o.info for seed, o in watched.items()}


def test_an_actor_is_a_few_methods(tmp_path):
    actor, steps = Still(SHORT, slots=2), StepRecorder()
    outcomes = run(actor, [steps])
    assert actor.closed and len(outcomes) == 8
    assert all(o.info["choice"] == -1 and o.info["fired"] is None and not o.chunks for o in outcomes.values())
    assert not np.any([step.action for step in steps.episodes[SHORT.seed].steps])


def test_a_recorder_that_needs_every_tick_refuses_restored_episodes(trained, tmp_path):
    actor = PolicyActor(trained.policy, trained.statistics, SHORT, prefixes=PrefixCache())
    with pytest.raises(MuvlaError) as refused:
        Rollout(actor, lambda: make_env(TASK), [StepRecorder()])
    assert refused.value.field == "recorders"
    Rollout(actor, lambda: make_env(TASK), [ChunkFile(tmp_path, "x")]).close()


@pytest.mark.parametrize("intervention", [None, "zero@cue_end"])
def test_rows_in_memory_are_those_of_a_run(trained, tmp_path, intervention):
    rows = evaluate_policy(trained.policy, trained.statistics, SHORT, intervention)
    request = EvaluationRequest(
        trained.policy, trained.statistics, SHORT, parse_intervention(intervention), "abc", 0, (range(24),)
    )
    filed = sorted(evaluate(request, tmp_path, EvaluationContext()).rows, key=lambda row: row.seed)
    theirs = {"result", "train", "training_seed", "provenance", "seconds", "environment_seconds"}
    same = [field.name for field in fields(rows[0]) if field.name not in theirs]
    assert [[getattr(row, name) for name in same] for row in rows] == [
        [getattr(row, name) for name in same] for row in filed
    ]


def test_an_evaluation_in_memory_records_its_donors(trained):
    rows = evaluate_policy(trained.policy, trained.statistics, replace(SHORT, episodes=18), "transplant_self")
    assert len(rows) == 18 and all(row.donor_seed == row.seed and row.fired for row in rows)
