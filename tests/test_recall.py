"""The embedded suite: known truth, no leak around the delay, determinism."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from muvla.config import TaskConfig
from muvla.envs.phases import Phase, events
from muvla.envs.recall import RECALL_TASKS, RecallEnv
from muvla.envs.registry import make_env, task_info
from muvla.errors import MuvlaError

TASKS = sorted(RECALL_TASKS)
PLAIN = [name for name in TASKS if name.startswith(("RecallPosition", "RecallColor"))]
TASK = "RecallPosition3-v0"


def play(env, seed, action=None):
    """Observations and infos of an episode; the expert's actions unless one is given."""
    observation, info = env.reset(seed=seed)
    seen, infos, done = [observation], [info], False
    while not done:
        observation, _, terminated, truncated, info = env.step(info["expert_action"] if action is None else action)
        seen.append(observation)
        infos.append(info)
        done = terminated or truncated
    return seen, infos


@pytest.mark.parametrize("name", TASKS)
def test_registered_and_conforming(name):
    env = gymnasium.make(name).unwrapped
    check_env(env, skip_render_check=True)


@pytest.mark.parametrize("name", TASKS)
def test_the_expert_always_succeeds_and_phases_have_their_lengths(name):
    env = make_env(TaskConfig(name))
    lengths = set()
    for seed in range(60):
        _, infos = play(env, seed)
        assert infos[-1]["success"] and infos[-1]["choice"] == infos[-1]["target"] == env.drawn.answer[0]
        phases = [i["phase"] for i in infos[:-1]]
        cue, delay = infos[0]["cue_length"], infos[0]["delay_length"]
        assert phases[: cue + delay] == [Phase.CUE] * cue + [Phase.DELAY] * delay
        assert set(phases[cue + delay :]) == {Phase.DECISION}
        lengths.add((cue, delay))
    (cue, longest), delay = env.task.cue, env.task.delay
    assert lengths == {(c, d) for c in range(cue, longest + 1) for d in range(delay[0], delay[1] + 1)}


@pytest.mark.parametrize("name", TASKS)
def test_an_episode_is_a_function_of_its_seed(name):
    one, two = play(make_env(TaskConfig(name)), 5)[0], play(make_env(TaskConfig(name)), 5)[0]
    assert all(np.array_equal(a["images"], b["images"]) for a, b in zip(one, two, strict=True))
    targets = [make_env(TaskConfig(name)).reset(seed=s)[1]["target"] for s in range(200)]
    counts = np.bincount(targets, minlength=RECALL_TASKS[name].objects)
    shares = counts / counts.sum()
    if "Capacity" in name:  # the leftmost of two of five
        assert shares == pytest.approx([0.4, 0.3, 0.2, 0.1, 0])
    else:
        assert shares.min() > 0.5 / len(counts), "targets are about uniform"


def test_the_effector_is_frozen_until_the_decision():
    env = make_env(TaskConfig("RecallPosition3-v0"))
    observation, info = env.reset(seed=0)
    start = observation["proprio"]
    while info["phase"] is not Phase.DECISION:
        observation, _, _, _, info = env.step(np.ones(2))
        assert np.array_equal(observation["proprio"], start)
        assert np.array_equal(info["executed_action"], np.zeros(2))
    observation, _, _, _, info = env.step(np.array([0.0, 1.0]))
    assert observation["proprio"][1] - start[1] == pytest.approx(0.25)
    assert np.array_equal(info["executed_action"], [0.0, 1.0])


@pytest.mark.parametrize("name", PLAIN)
def test_after_the_cue_nothing_observed_tells_the_target(name):
    """The calibration: delay frames and the first decision frame do not depend on the cue. So without memory no policy
    that queries at every step can choose better than 1/N."""
    env = make_env(TaskConfig(name))
    for seed in range(10):
        _, info = env.reset(seed=seed)
        frames = {}
        for target in range(RECALL_TASKS[name].objects):
            observation, info = env.reset(seed=seed)
            env.drawn = replace(env.drawn, answer=(target,))
            if "Color" in name:
                env.drawn = replace(env.drawn, cued=env.drawn.colour_at[target])
            while info["phase"] is not Phase.DECISION:
                observation, _, _, _, info = env.step(info["expert_action"])
                if info["phase"] is not Phase.CUE:
                    frames.setdefault(target, []).append(observation)
        first = frames[0]
        for others in frames.values():
            for a, b in zip(first, others, strict=True):
                assert np.array_equal(a["images"], b["images"]) and np.array_equal(a["proprio"], b["proprio"])


@pytest.mark.parametrize("name", PLAIN)
def test_the_cue_tells_the_target(name):
    env = make_env(TaskConfig(name))
    first = {}
    for seed in range(40):
        observation, info = env.reset(seed=seed)
        key = info["target"] if "Position" in name else env.drawn.cued
        first.setdefault(key, observation["images"][0].mean(axis=(0, 1)).round(2).tolist())
        env.close()
    if "Color" in name:
        values = list(first.values())
        assert all(values[i] != values[j] for i in range(len(values)) for j in range(i))
    assert len(first) == RECALL_TASKS[name].objects


def test_the_first_disc_touched_is_the_choice_and_ends_the_episode():
    env = make_env(TaskConfig("RecallPosition3-v0"))
    for seed in range(20):
        _, info = env.reset(seed=seed)
        wrong = (info["target"] + 1) % 3
        done = False
        while not done:
            delta = (env.places[wrong] - env.effector) / 0.25
            _, _, done, truncated, info = env.step(delta / max(1, np.abs(delta).max()))
            assert not truncated
        assert info["choice"] == wrong and not info["success"]


def test_no_touch_ends_at_the_step_limit():
    env = make_env(TaskConfig("RecallPosition3-v0"))
    _, infos = play(env, 0, action=np.zeros(2))
    assert len(infos) - 1 == env.step_limit == 15
    assert infos[-1]["choice"] == -1 and not infos[-1]["success"]


def test_phase_lengths_and_palette_bite():
    env = make_env(TaskConfig("RecallColor3-v0", cue=(4, 4), delay=(7, 7), palette=("pink", "brown", "white")))
    observation, info = env.reset(seed=0)
    assert (info["cue_length"], info["delay_length"], env.step_limit) == (4, 7, 21)
    default = RecallEnv("RecallColor3-v0", cue=(4, 4), delay=(7, 7)).reset(seed=0)[0]
    assert not np.array_equal(observation["images"], default["images"])


def test_image_size_bites():
    assert make_env(TaskConfig("RecallColor3-v0"), 64).reset(seed=0)[0]["images"].shape == (2, 64, 64, 3)


@pytest.mark.parametrize(
    ("task", "field"),
    [
        (TaskConfig("RecallSmell3-v0"), "task.name"),
        (TaskConfig("RecallColor3-v0", physics="gpu"), "task.physics"),
        (TaskConfig("RecallColor3-v0", palette=("red", "lime")), "task.palette"),
        (TaskConfig("RecallColor3-v0", palette=("red", "red", "blue")), "task.palette"),
        (TaskConfig("RecallColor3-v0", palette=("red", "lime", "ultraviolet")), "task.palette"),
    ],
)
def test_bad_tasks_are_refused(task, field):
    with pytest.raises(MuvlaError) as refused:
        make_env(task)
    assert refused.value.field == field


def test_chance():
    assert task_info("RecallPosition3-v0").chance == pytest.approx(1 / 3)
    assert task_info("RecallColor5-v0").chance == pytest.approx(1 / 5)


def test_a_blank_shows_the_same_episode_later():
    plain, later = make_env(TaskConfig(TASK)), make_env(TaskConfig(TASK, blank=(2, 2)))
    shown, waiting = plain.reset(seed=5)[0], later.reset(seed=5)
    assert waiting[1]["phase"] is Phase.BLANK and waiting[1]["blank_length"] == 2
    assert later.step_limit == plain.step_limit + 2
    assert not np.array_equal(waiting[0]["images"], shown["images"])
    for _ in range(2):
        observation, _, _, _, info = later.step(np.ones(2))
        assert not info["executed_action"].any(), "nothing is executed before the decision"
    assert info["phase"] is Phase.CUE and np.array_equal(observation["images"], shown["images"])
    assert events(info)["cue_end"] == events(plain._info(np.zeros(2)))["cue_end"] + 2
    lengths = {make_env(TaskConfig(TASK, blank=(0, 3))).reset(seed=seed)[1]["blank_length"] for seed in range(40)}
    assert lengths == {0, 1, 2, 3}


def test_events_are_where_the_phases_change():
    env = make_env(TaskConfig(TASK, blank=(1, 2)))
    phases = [env.reset(seed=3)[1]["phase"]]
    while phases[-1] is not Phase.DECISION:
        phases.append((info := env.step(np.zeros(2))[4])["phase"])
    found = events(info)
    assert phases[found["cue_end"]] is Phase.CUE and phases[found["cue_end"] + 1] is Phase.DELAY
    assert phases[found["delay_end"]] is Phase.DELAY and found["first_decision"] == len(phases) - 1
    assert events({"cue_length": 3, "delay_length": 0}) == {"cue_end": 2, "first_decision": 3}
    assert events({"cue_length": 0, "delay_length": 0}) == events({}) == {}
