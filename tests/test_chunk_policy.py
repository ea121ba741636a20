"""The MIKASA suite's own runner with a policy from here: what it is given to execute is what a rollout executes."""

from dataclasses import replace
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from helpers.errors import refused
from muvla.checkpoints.build import build_policy
from muvla.config import TaskConfig
from muvla.config.serialization import replace as replace_in
from muvla.data.normalization import Statistics
from muvla.envs.mikasa.env import pictures, proprioception, resized
from muvla.envs.phases import Phase
from muvla.envs.registry import task_info
from muvla.errors import MuvlaError, NotAMeasurement
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.chunk_policy import SuitePolicy
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.rollout import Rollout
from muvla.models.policy import Interface
from muvla.models.prompts import built_in_prompts
from muvla.runs.chunk_policy import chunk_policy
from muvla.runs.run import TrainedOn

TASK, LIMIT = "RememberColor3-VLA-v0", 25
RECEDING = replace(
    get_protocol("mikasa-remember-color3-rh@2"),
    name="short",
    task=TaskConfig(TASK),
    episodes=2,
    slots=1,
    image_size=32,
    break_at_success=False,
)
OPEN = replace(RECEDING, regime="open_loop", h=4, tick="call")
REGIMES = pytest.mark.parametrize("one", [RECEDING, OPEN], ids=["receding", "open loop"])


class Fake:
    """What the suite shows of an episode: a function of its seed and of what was executed. 128 pixels, both cameras."""

    max_episode_steps, action_space = LIMIT, spaces.Box(-1, 1, (7,))

    def __init__(self):
        self.unwrapped, self.executed = SimpleNamespace(), []

    def reset(self, *, seed):
        self.rng, self.steps = np.random.default_rng(seed), 0
        self.proprio, self.executed = self.rng.normal(size=7), [*self.executed, []]
        return self._observation(), {}

    def step(self, action):
        self.executed[-1].append(np.array(action, np.float32).reshape(7))
        self.proprio, self.steps = self.proprio + 0.1 * self.executed[-1][-1], self.steps + 1
        return self._observation(), 0.0, False, self.steps == LIMIT, {"success": torch.tensor([False])}

    def _observation(self):
        rgb = self.rng.integers(0, 256, (1, 128, 128, 6), dtype=np.uint8)
        return {"rgb": torch.from_numpy(rgb), "proprio": torch.tensor(self.proprio[None], dtype=torch.float32)}


class Ours(gymnasium.Env):
    """The same, as an environment here."""

    observation_space = spaces.Dict(
        images=spaces.Box(0, 255, (2, 32, 32, 3), np.uint8), proprio=spaces.Box(-9, 9, (7,))
    )
    action_space = Fake.action_space

    def __init__(self, fake):
        self.fake = fake

    def reset(self, *, seed=None, options=None):
        raw, _ = self.fake.reset(seed=seed)
        return self._seen(raw), self._info()

    def step(self, action):
        raw, reward, terminated, truncated, _ = self.fake.step(action)
        return self._seen(raw), reward, terminated, truncated, self._info()

    def _seen(self, raw):
        return {"images": resized(pictures(raw), 32), "proprio": proprioception(raw)}

    def _info(self):
        nothing = {"target": None, "choice": -1, "success": False, "cue_length": 0, "delay_length": 0}
        return nothing | {"phase": Phase.DECISION, "instruction": task_info(TASK).instruction}


@pytest.fixture(scope="module")
def policy(base):
    length = len(built_in_prompts().encode(task_info(TASK).instruction))
    return build_policy(replace_in(base, {"model.chunk": 4}), Interface(2, 7, 7, length, False))


# The scale of actions is wide, so that some of them are clipped.
STATISTICS = Statistics((-2.0,) * 7, (2.0,) * 7, (-3.0,) * 7, (3.0,) * 7, (True,) * 7, "test")


def suite_policy(policy, one=RECEDING):
    return SuitePolicy(policy, STATISTICS, one)


def run_by_hand(env, chunks, seed):
    """An episode as the suite's runner has it, where the suite is not installed."""
    observation, _ = env.reset(seed=seed)
    waiting, steps, over = [], 0, False
    while not over:
        waiting = waiting or list(chunks.forward(observation))
        observation, _, _, over, _ = env.step(waiting.pop(0))
        steps += 1
    return SimpleNamespace(seed=seed, n_steps=steps)


def rolled_out(policy, one):
    fake = Fake()
    rollout = Rollout(PolicyActor(policy, STATISTICS, one), lambda: Ours(fake))
    rollout.run(range(one.seed, one.seed + 2), lambda outcome: None)
    return fake.executed


@REGIMES
def test_it_executes_what_a_rollout_executes(policy, one):
    """Bit for bit, in both regimes, over two episodes: image and proprio, scale, memory and its reset."""
    fake, chunks = Fake(), suite_policy(policy, one)
    assert chunks.chunk_size == one.h
    for i in range(2):
        chunks.episode_ended(i, run_by_hand(fake, chunks, one.seed + i))
    expected = rolled_out(policy, one)
    assert np.array_equal(fake.executed, expected) and np.shape(expected) == (2, LIMIT, 7)
    assert np.abs(expected).max() <= 1 and len(np.unique(expected)) > 100, "a policy that acts"


@REGIMES
@pytest.mark.sim
def test_the_suites_own_runner_executes_it(policy, one):
    from muvla.envs.mikasa.simulator import load_suite

    load_suite()
    from mikasa_robo_suite.vla import benchmarking

    fake, chunks = Fake(), suite_policy(policy, one)
    for i in range(2):
        result, _ = benchmarking.run_episode(fake, chunks, one.seed + i)
        chunks.episode_ended(i, result)
    assert np.array_equal(fake.executed, rolled_out(policy, one))


@pytest.mark.sim
@pytest.mark.slow
def test_a_real_task_by_the_suites_own_runner(policy, monkeypatch):
    """Simulated and rendered by the suite alone: it executes what our own rollout of the same episode does."""
    from muvla.envs.mikasa import MikasaEnv

    run = SimpleNamespace(trained_on=lambda: TrainedOn(STATISTICS, 0, ()), load_policy=lambda device: policy)
    one = replace(OPEN, episodes=1, task=TaskConfig(TASK))
    chunks, executed = chunk_policy(run, one), []
    from mikasa_robo_suite.vla import benchmarking

    batched = benchmarking._batch_action_for_single_env
    monkeypatch.setattr(
        benchmarking,
        "_batch_action_for_single_env",
        lambda action, env: executed.append(np.array(action)) or batched(action, env),
    )
    task = benchmarking.BenchmarkTask(TASK, "short", "", LIMIT, "", "")
    config = benchmarking.BenchmarkConfig(start_seed=one.seed, n_episodes=1, sim_backend="cpu")
    told = benchmarking.evaluate_task(task, chunks, config, episode_callback=chunks.episode_ended)
    assert told["episode_lengths"] == [LIMIT] and told["action_chunk_size"] == 4

    ours = []

    class Watched(MikasaEnv):
        def step(self, action):
            ours.append(np.array(action))
            return super().step(action)

    rollout = Rollout(PolicyActor(policy, STATISTICS, one), lambda: Watched(TASK, 32))
    found = []
    rollout.run([one.seed], found.append)
    rollout.close()
    assert found[0].error is None and np.array_equal(executed, ours)
    assert told["successes"] == [found[0].info["success_once"]]


def test_a_callback_that_was_forgotten_is_noticed(policy):
    fake, chunks = Fake(), suite_policy(policy)
    run_by_hand(fake, chunks, RECEDING.seed)
    with pytest.raises(MuvlaError) as info:
        run_by_hand(fake, chunks, RECEDING.seed + 1)
    assert info.value.field == "episode_callback"


def test_an_end_that_is_anothers_is_no_measurement(policy):
    chunks = suite_policy(policy, OPEN)
    run_by_hand(Fake(), chunks, OPEN.seed)
    with pytest.raises(NotAMeasurement) as info:
        chunks.episode_ended(0, SimpleNamespace(seed=7, n_steps=LIMIT))
    assert info.value.field == "episode_callback"
    with pytest.raises(NotAMeasurement) as info:
        chunks.episode_ended(0, SimpleNamespace(seed=OPEN.seed, n_steps=8))
    assert info.value.field == "memory"


@pytest.mark.parametrize(
    ("one", "field"),
    [
        (get_protocol("recall-position3-rh@1"), "protocol.task"),
        (get_protocol("mikasa-rotate-lenient-pos-rh@1"), "protocol.task"),
        (replace(OPEN, tick="env_step"), "protocol.tick"),
        (replace(OPEN, h=5), "protocol.h"),
        (replace(OPEN, h=5, beyond="hold_last"), "protocol.h"),
    ],
    ids=["another suite", "Rotate", "tick", "h", "held"],
)
def test_what_the_runner_cannot_evaluate_is_refused(policy, one, field):
    with refused(field):
        suite_policy(policy, one)


def test_another_robot_is_refused(base):
    length = len(built_in_prompts().encode(task_info(TASK).instruction))
    with pytest.raises(MuvlaError) as info:
        suite_policy(build_policy(replace_in(base, {"model.chunk": 4}), Interface(2, 2, 2, length, False)))
    assert info.value.field == "protocol.task"


def test_a_policy_that_gives_no_numbers_ends_the_runners_evaluation(policy):
    broken = replace(STATISTICS, action_low=(float("nan"),) * 7)
    with pytest.raises(NotAMeasurement) as info:
        run_by_hand(Fake(), SuitePolicy(policy, broken, RECEDING), RECEDING.seed)
    assert info.value.field == "action"


def test_episodes_that_were_trained_on_are_refused(policy, monkeypatch):
    monkeypatch.setattr("muvla.runs.chunk_policy.load_suite", lambda: None)
    for seeds, overlaps in ((range(RECEDING.seed + 1, RECEDING.seed + 9), True), (range(9), False)):
        run = SimpleNamespace(
            trained_on=lambda seeds=seeds: TrainedOn(STATISTICS, 0, (seeds,)), load_policy=lambda _: policy
        )
        if overlaps:
            with pytest.raises(MuvlaError) as info:
                chunk_policy(run, RECEDING)
            assert info.value.field == "protocol.seed"
        else:
            assert chunk_policy(run, RECEDING).chunk_size == 1
