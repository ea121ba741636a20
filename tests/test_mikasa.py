"""The MIKASA-Robo adapter: what needs no simulator, and, marked `sim`, the real RememberColor3 with rendered frames."""

import os
import subprocess
import sys

import numpy as np
import pytest

from helpers.errors import refused
from muvla.config import TaskConfig
from muvla.envs.experts import ABOVE, STILL, reach
from muvla.envs.mikasa import MikasaEnv
from muvla.envs.mikasa.instructions import INSTRUCTIONS
from muvla.envs.phases import NO_OP_PHASES, Phase
from muvla.envs.recall.env import RecallEnv
from muvla.envs.recall.tasks import RECALL_TASKS
from muvla.envs.registry import make_env
from muvla.errors import MuvlaError

# pytest puts its own warning filters over the adapter's
pytestmark = pytest.mark.filterwarnings("ignore:.*to get variables from other wrappers is deprecated")
TASK = "RememberColor3-VLA-v0"


def test_an_unknown_task_is_refused():
    with refused("task.name"):
        MikasaEnv("RememberColor4-VLA-v0")


@pytest.mark.parametrize(
    "said",
    ["vk::createInstanceUnique: ErrorIncompatibleDriver", 'Failed to find a supported physical device "cpu"'],
    ids=["no driver", "Mesa 22.3"],
)
def test_a_driver_that_cannot_render_is_one_error(monkeypatch, said):
    """In the words in which SAPIEN tells of none at all, and of a Mesa that is too old."""
    from muvla.envs.mikasa import simulator as adapter

    def make(*_, **__):
        raise RuntimeError(said)

    monkeypatch.setattr(adapter, "load_suite", lambda: None)
    monkeypatch.setattr(adapter, "backend", lambda field, asked: "cpu")
    monkeypatch.setattr(adapter.gymnasium, "make", make)
    with refused("renderer") as info:
        MikasaEnv(TASK)
    assert info.value.field == "renderer" and info.value.got == said


@pytest.mark.parametrize("missing", ["mani_skill", "mikasa_robo_suite"])
def test_without_the_simulator_the_remedy_is_named(monkeypatch, missing):
    for name in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)  # Python's own way to make an import fail
    with refused("simulator") as info:
        MikasaEnv(TASK)
    assert info.value.field == "simulator"


def test_importing_the_adapter_imports_no_simulator():
    code = "import sys, muvla.envs.mikasa; print({'mani_skill', 'sapien', 'mikasa_robo_suite'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_the_expert_goes_straight_and_holds_still():
    cube, tcp = np.array([0.1, -0.2, 0.02]), np.array([-0.05, 0.1, 0.33])
    action = reach(tcp, cube)
    line = cube + ABOVE - tcp
    assert action.shape == (7,)
    assert action.dtype == np.float32
    assert np.abs(action).max() == pytest.approx(1)
    np.testing.assert_allclose(np.cross(action[:3], line), 0, atol=1e-6)
    assert action[:3] @ line > 0
    near = cube + ABOVE + [0.02, 0, 0]
    np.testing.assert_allclose(reach(near, cube), [-0.2, 0, 0, 0, 0, 0, 0], atol=1e-6)  # 1 is 0.1 m
    np.testing.assert_array_equal(reach(cube + ABOVE + [0.9 * STILL, 0, 0], cube), 0)


# --- with the simulator -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def env():
    env = MikasaEnv(TASK)
    yield env
    env.close()


def play(env, seed, act):
    """Observations, infos and rewards-and-flags of one whole episode; `act(info)` is the policy."""
    observation, info = env.reset(seed=seed)
    observations, infos, ends = [observation], [info], []
    while not ends or not ends[-1][2]:
        observation, *end, info = env.step(act(info))
        observations.append(observation)
        infos.append(info)
        ends.append(end)
    return observations, infos, ends


@pytest.fixture(scope="module")
def expert_episode(env):
    return play(env, 11, lambda info: info["expert_action"])


@pytest.mark.sim
def test_frames_are_rendered_and_show_the_phases(expert_episode):
    observations, infos, _ = expert_episode
    shown = {info["phase"]: o["images"] for o, info in zip(observations, infos, strict=True)}
    assert set(shown) == {Phase.CUE, Phase.DELAY, Phase.DECISION}
    for images in shown.values():
        assert images.shape == (2, 128, 128, 3)
        assert images.dtype == np.uint8
        assert all(images[camera].std() > 5 for camera in range(2))
    cue, delay = shown[Phase.CUE].astype(int), shown[Phase.DELAY].astype(int)
    # The cued cube, red for this seed, is seen by both cameras and gone in the delay.
    assert infos[0]["target"] == 0
    for camera in range(2):
        red = (cue[camera, ..., 0] > 150) & (cue[camera, ..., 1:].max(axis=-1) < 60)
        assert 0 < red.sum() < 200
        assert (delay[camera][red][:, 1] > 60).all()


@pytest.mark.sim
def test_info_is_the_recall_suites(expert_episode, env):
    observations, infos, ends = expert_episode
    recall = RecallEnv(next(iter(RECALL_TASKS)))
    assert all(set(info) == set(recall.reset(seed=0)[1]) for info in infos)
    assert len(ends) == env.step_limit == 25
    assert [truncated for _, _, truncated in ends] == [False] * 24 + [True]
    assert not any(terminated for _, terminated, _ in ends)
    assert all(isinstance(reward, float) for reward, _, _ in ends)
    cue, delay = infos[0]["cue_length"], infos[0]["delay_length"]
    assert 1 <= cue <= 5
    assert 1 <= delay <= 5
    phases = [Phase.CUE] * cue + [Phase.DELAY] * delay + [Phase.DECISION] * (26 - cue - delay)
    assert [info["phase"] for info in infos] == phases
    assert len({(info["target"], info["cue_length"], info["delay_length"]) for info in infos}) == 1
    for observation, info in zip(observations, infos, strict=True):
        assert observation["proprio"].shape == (7,)
        assert observation["proprio"].dtype == np.float32
        assert observation in env.observation_space
        for name in ("executed_action", "expert_action"):
            assert info[name].dtype == np.float32
            assert info[name] in env.action_space
    assert env._base.LANGUAGE_INSTRUCTION == infos[0]["instruction"] == INSTRUCTIONS["RememberColor"]
    assert (env.sim_backend, env.render_backend[:6]) == ("physx_cpu", "sapien")


@pytest.mark.sim
def test_it_tells_its_wrappers_and_renderers(env):
    """Outermost first; the tap right under the suite's, as published (spec 6.1)."""
    told = env.provenance
    assert told["wrappers"][-3:] == ["ActionTap", "TimeLimitWrapper", "OrderEnforcing"]
    assert told["wrappers"][:3] == [
        "ConvertJointsToEEFXyzRpyGripperWrapper",
        "FlattenRGBDObservationWrapper",
        "CurriculumPhaseNoopActionWrapper",
    ]
    assert told["renderers"] and all(told["renderers"])


@pytest.mark.sim
def test_in_no_op_phases_nothing_is_executed_and_the_variant_stays(expert_episode):
    observations, infos, _ = expert_episode
    for t in range(len(infos) - 1):
        sent, executed = infos[t]["expert_action"], infos[t + 1]["executed_action"]
        if infos[t]["phase"] in NO_OP_PHASES:
            assert np.abs(sent).max() > 0.5  # the expert's, as if it were executed: for the place to come
            np.testing.assert_array_equal(executed, 0)
            np.testing.assert_allclose(observations[t + 1]["proprio"][:6], observations[t]["proprio"][:6], atol=1e-4)
        else:
            np.testing.assert_array_equal(executed, sent)
    no_ops = infos[0]["cue_length"] + infos[0]["delay_length"]
    np.testing.assert_allclose(infos[0]["expert_action"], infos[no_ops]["expert_action"], atol=1e-3)
    # ... but for the gripper, whose 0 is a position
    assert observations[no_ops]["proprio"][6] < observations[0]["proprio"][6] - 0.02


@pytest.mark.sim
def test_the_same_seed_is_the_same_episode(env, expert_episode):
    observations, infos, _ = expert_episode
    play(env, 12, lambda info: np.full(7, 0.3))  # another one in between
    again, _, _ = play(env, 11, lambda info: info["expert_action"])
    for ours, theirs in zip(observations, again, strict=True):
        np.testing.assert_array_equal(ours["images"], theirs["images"])
        np.testing.assert_array_equal(ours["proprio"], theirs["proprio"])
    assert infos[0]["target"] == 0


@pytest.mark.sim
@pytest.mark.parametrize("seed", [11, 3])
def test_the_expert_touches_the_target(env, expert_episode, seed):
    _, infos, ends = expert_episode if seed == 11 else play(env, seed, lambda info: info["expert_action"])
    successes = [info["success"] for info in infos]
    first = successes.index(True)
    assert infos[first]["phase"] is Phase.DECISION
    assert successes[-1]  # it holds still, while the suite does not end the episode
    assert len(ends) == 25
    assert infos[-1]["choice"] == infos[-1]["target"]
    choices = [info["choice"] for info in infos]
    assert set(choices) == {-1, infos[0]["target"]}
    assert choices == sorted(choices)  # sticky, and before success: from -1 to the target, once


@pytest.mark.sim
def test_going_to_another_cube_is_another_choice(env):
    def other(info):
        return reach(env._proprio[:3], env.places()[(info["target"] + 1) % 3])

    _, infos, _ = play(env, 11, other)
    assert infos[-1]["choice"] == (infos[0]["target"] + 1) % 3
    assert not any(info["success"] for info in infos)


@pytest.mark.sim
def test_frames_come_at_the_size_asked_for():
    env = make_env(TaskConfig(TASK), image_size=64)
    observation, _ = env.reset(seed=11)
    assert observation in env.observation_space
    assert observation["images"].shape == (2, 64, 64, 3)
    assert observation["images"].dtype == np.uint8
    env.close()


@pytest.mark.sim
def test_a_missing_renderer_is_one_clear_error():
    code = f"from muvla.envs.mikasa import MikasaEnv; MikasaEnv({TASK!r}, render_backend='cpu')"
    nowhere = {"VK_DRIVER_FILES": "/nonexistent", "VK_ICD_FILENAMES": "/nonexistent"}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | nowhere, check=False
    )
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert "MuvlaError: renderer:" in last and "install-system-packages.sh" in last


@pytest.mark.sim
@pytest.mark.parametrize("field", ["sim_backend", "render_backend"])
def test_a_backend_that_is_not_there_is_refused(field):
    import torch

    with pytest.raises(MuvlaError) as info:
        MikasaEnv(TASK, **{field: "tpu"})
    assert info.value.field == field and info.value.got == "tpu"
    if not torch.cuda.is_available():  # ManiSkill would take the CPU and say so in a warning
        with pytest.raises(MuvlaError) as info:
            MikasaEnv(TASK, **{field: "gpu"})
        assert info.value.field == field and info.value.got == "gpu"
