"""Episodes that begin where an intervention does are those that begin at their beginning."""

from dataclasses import replace

import numpy as np
import pytest

from muvla.config import TaskConfig, dummy, ema
from muvla.envs.registry import make_env
from muvla.errors import MuvlaError
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.context import EvaluationContext
from muvla.evaluation.donor_recording import with_donors
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.prefix_cache import PrefixCache
from muvla.evaluation.rollout import Rollout
from muvla.interventions import parse_intervention
from muvla.probes.time_map import time_map
from muvla.training.trainer import Trainer

TASK = TaskConfig("RecallPosition3-v0", cue=(1, 2), delay=(1, 2), blank=(0, 1))
SHORT = replace(get_protocol("recall-position3-rh@1"), name="short", task=TASK, episodes=10, slots=5)
NAMES = [
    "zero@cue_end+1",
    "noise_unit@delay_end..",
    "freeze@cue_end..",
    "stale(2)@first_decision",
    "drop@delay_end+1",
    "empty@every(3)",
    "zero",
    "empty@first_decision+1",
    "zero[0:1]@..cue_end",
]


@pytest.mark.parametrize("task", ["RecallPosition3-v0", "RecallColor5-v0"])
def test_the_environment_goes_on_exactly(task):
    """Also after another episode was played in it; and what was saved is not changed by what follows."""
    env, actions = make_env(TaskConfig(task)), np.random.default_rng(0).uniform(-1, 1, (12, 2))
    env.reset(seed=5)
    for action in actions[:4]:
        observation, *_ = env.step(action)
    saved = env.snapshot()

    def rest():
        return [env.step(action) for action in actions[4:]]

    first = rest()
    env.reset(seed=9)
    restored = env.restore(saved)
    assert all(np.array_equal(restored[k], observation[k]) for k in observation)
    for one, other in zip(first, rest(), strict=True):
        assert all(np.array_equal(one[0][k], other[0][k]) for k in one[0]) and one[1:4] == other[1:4]
        assert str(one[4]) == str(other[4])


@pytest.fixture(scope="module")
def trained(store, cell_with):
    trainer = Trainer(cell_with({**ema(0.5, 4), "budget.updates": 10, "model.chunk": 4}), store)
    for _ in range(10):
        trainer.step()
    return trainer


def outcomes(trainer, name, branches=None, one=SHORT):
    kind = with_donors(parse_intervention(name), trainer.policy, trainer.statistics, one, EvaluationContext())
    found = {}
    actor = PolicyActor(trainer.policy, trainer.statistics, one, kind, branches)
    rollout = Rollout(actor, lambda: make_env(one.task))
    rollout.run(range(one.seed, one.seed + one.episodes), lambda o: found.update({o.seed: o}))
    return found, actor.ticks


def require_same(one, other):
    assert one.keys() == other.keys()
    for seed in one:
        assert one[seed].info == other[seed].info
        for (step, chunk), (same, again) in zip(one[seed].chunks, other[seed].chunks, strict=True):
            assert step == same and np.array_equal(chunk, again)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["none", "zero@delay_end"])
def test_rows_are_those_of_whole_episodes(trained, first):
    """Whoever ran first, and however far its episodes were plain."""
    branches, saved = PrefixCache(), 0
    outcomes(trained, first, branches)
    for name in NAMES:
        whole, ticks = outcomes(trained, name)
        branched, fewer = outcomes(trained, name, branches)
        require_same(whole, branched)
        saved += ticks - fewer
        assert fewer <= ticks
    assert saved > 0


@pytest.mark.parametrize(
    "change", [{"regime": "open_loop", "h": 2, "tick": "call"}, {"regime": "open_loop", "h": 4, "tick": "env_step"}]
)
def test_also_where_a_chunk_is_under_way(trained, change):
    one, branches = replace(SHORT, **change), PrefixCache()
    outcomes(trained, "none", branches, one)
    for name in ("zero@cue_end+1", "stale(1)@first_decision.."):
        require_same(outcomes(trained, name, None, one)[0], outcomes(trained, name, branches, one)[0])


@pytest.mark.slow
def test_also_of_a_donor_and_of_tokens_that_carry_nothing(trained, store, cell_with):
    task = replace(TASK, cue=(1, 1), delay=(1, 1), blank=None)
    one, branches = replace(SHORT, task=task, episodes=18, slots=9), PrefixCache()
    outcomes(trained, "none", branches, one)
    require_same(outcomes(trained, "transplant", None, one)[0], outcomes(trained, "transplant", branches, one)[0])
    trainer, branches = Trainer(cell_with({**dummy(4), "model.chunk": 4}), store), PrefixCache()
    outcomes(trainer, "none", branches)
    require_same(outcomes(trainer, "zero@delay_end", None)[0], outcomes(trainer, "zero@delay_end", branches)[0])


@pytest.mark.slow
def test_what_an_intervention_gave_stays_with_it(trained):
    """A transplant that ran first leaves no donor in the rows of others."""
    one, branches = replace(SHORT, task=replace(TASK, cue=(1, 1), delay=(1, 1), blank=None), episodes=18), PrefixCache()
    given, _ = outcomes(trained, "transplant", branches, one)
    assert all(o.info["donor_seed"] is not None for o in given.values() if o.info["fired"])
    others, _ = outcomes(trained, "zero@delay_end", branches, one)
    assert all(o.info["donor_seed"] is o.info["donor_target"] is None for o in others.values())


def test_another_protocol_starts_anew(trained):
    branches = PrefixCache()
    outcomes(trained, "none", branches)
    longer = replace(SHORT, name="longer", task=replace(TASK, delay=(3, 3)))
    require_same(outcomes(trained, "zero@4", None, longer)[0], outcomes(trained, "zero@4", branches, longer)[0])


def test_an_environment_that_cannot_be_put_back_is_run_from_its_beginning(trained, monkeypatch):
    from muvla.envs.recall import RecallEnv

    monkeypatch.delattr(RecallEnv, "snapshot")
    branches = PrefixCache()
    _, whole = outcomes(trained, "zero@delay_end", branches)
    assert not branches.snapshots.get(SHORT.seed) and outcomes(trained, "zero@delay_end", branches)[1] == whole


def test_a_time_map_is_one_point_for_each_kind_step_and_block():
    grid = time_map(SHORT, ["zero", "stale(1)"], steps=(-1, 0, 2), blocks=((0, 2), (2, 4)))
    names = [p.intervention for p in grid.points if p.intervention != "none"]
    assert len(names) == len(set(names)) == 12 and "stale(1)[2:4]@cue_end" in names
    assert "zero[0:2]@cue_end-1" in names and all(parse_intervention(name).name == name for name in names)
    assert (grid.x, grid.y, grid.curve) == ("since_cue", "tokens", "intervention")
    point = next(p for p in grid.points if p.intervention == "zero[2:4]@cue_end+2")
    assert dict(point.coordinates) == {"intervention": "zero", "since_cue": 2, "tokens": "[2:4]"}
    assert time_map(SHORT, ["transplant/before_read"]).points[-1].intervention == "transplant/before_read@cue_end+5"
    assert "at before_read" in grid.notes
    for refused in (["zero", "empty"], ["none"], ["zero@3"], ["zero[0:1]"], ["freeze"]):
        with pytest.raises(MuvlaError) as error:
            time_map(SHORT, refused)
        assert error.value.field == "time-map"
