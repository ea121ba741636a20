"""ManiSkill's own tasks and the Bridge twins, without their simulator: the table, what the adapter makes of them, what
is refused. That they run: test_mikasa_suite.py. The twins' assets were not to be had: they were not run."""

from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from helpers.errors import refused
from muvla.config import TaskConfig
from muvla.envs.maniskill import MANISKILL_TASKS, ManiSkillEnv
from muvla.envs.maniskill import env as adapter
from muvla.envs.maniskill.assets import BRIDGE
from muvla.envs.mikasa import simulator
from muvla.envs.registry import backends, make_env, task_info
from muvla.errors import MuvlaError

TWIN, PANDA = "PutCarrotOnPlateInScene-v1", "StackCube-v1"


class Fake(gymnasium.Env):
    """What of a ManiSkill environment the adapter looks at."""

    observation_space = action_space = spaces.Box(-1, 1, (7,), np.float32)
    backend = SimpleNamespace(sim_backend="physx_cpu", render_backend="sapien_cpu")
    gpu_sim_enabled = False

    def __init__(self, cameras, height, width, joints):
        self.cameras, self.size, self.joints, self.asked = cameras, (height, width), joints, []

    def _told(self, step):
        shown = {
            name: {"rgb": torch.full((1, *self.size, 3), 10 * i + step, dtype=torch.uint8)}
            for i, name in enumerate(self.cameras)
        }
        info = {"elapsed_steps": torch.tensor([step]), "success": torch.tensor([step == 2])}
        return {"sensor_data": shown, "agent": {"qpos": torch.arange(self.joints)[None].float()}}, info

    def reset(self, *, seed=None, options=None):
        self.asked.append((seed, options))
        return self._told(0)

    def step(self, action):
        self.asked.append(action)
        raw, info = self._told(len(self.asked) - 1)
        return raw, torch.zeros(1), info["success"], torch.tensor([False]), info

    def render(self):
        self.asked.append("render")


@pytest.fixture
def made(monkeypatch, tmp_path):
    """What the adapter asks ManiSkill for; the assets are there."""
    told = {}

    def make(name, step_limit, sim_backend, render_backend, **options):
        told.update(options, name=name, step_limit=step_limit)
        told["env"] = Fake(["third"], 48, 64, 8) if "obs_mode" in options else Fake(["base", "hand"], 128, 128, 9)
        return told["env"]

    monkeypatch.setenv("MS_ASSET_DIR", str(tmp_path))
    for part in BRIDGE.parts:
        (tmp_path / part).mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(adapter, "make", make)
    monkeypatch.setattr(adapter, "load_maniskill", lambda: None)
    return told


def test_the_tasks_and_their_suites():
    suites = {suite: [n for n, t in MANISKILL_TASKS.items() if t.suite == suite] for suite in ("maniskill", "bridge")}
    assert [len(names) for names in suites.values()] == [12, 4]
    for name, task in MANISKILL_TASKS.items():
        known = task_info(name)
        assert (known.suite, known.own_process, known.chance, known.expert) == (task.suite, True, None, False)
        assert known.instructions == (task.instruction,) and known.camera == task.camera
        assert task.assets == ((BRIDGE,) if task.suite == "bridge" else ())
    assert {MANISKILL_TASKS[name].step_limit for name in suites["bridge"]} == {60, 120}


def test_a_panda_is_looked_at_by_all_its_cameras_and_told_by_its_joints(made):
    env = ManiSkillEnv(PANDA)
    assert (made["name"], made["step_limit"], made["reward_mode"]) == (PANDA, 50, "none") and "obs_mode" not in made
    observation, info = env.reset(seed=7)
    assert made["env"].asked == [(7, {"reconfigure": True})] and observation in env.observation_space
    assert [int(picture.mean()) for picture in observation["images"]] == [0, 10]
    np.testing.assert_array_equal(observation["proprio"], np.arange(9))
    action = np.linspace(-1, 1, 7)
    observation, _, terminated, truncated, info = env.step(action)
    np.testing.assert_allclose(made["env"].asked[1], action, atol=1e-6)
    np.testing.assert_allclose(info["executed_action"], action, atol=1e-6)
    assert not terminated and not truncated and len(made["env"].asked) == 2, "no picture but the cameras'"
    assert (info["phase"].name, info["target"], info["choice"], info["expert_action"]) == ("DECISION", None, -1, None)
    assert info["instruction"] == "Stack the red cube on the green cube."


def test_a_picture_after_every_step_is_part_of_gpu_physics_alone(made):
    env = ManiSkillEnv(PANDA)
    env.reset(seed=7)
    for _ in range(2):
        made["env"].gpu_sim_enabled = not made["env"].gpu_sim_enabled
        env.step(np.zeros(7))
    assert [one for one in made["env"].asked if isinstance(one, str)] == ["render"]
    assert made["env"].asked[2] == "render", "after the first step, which was on a GPU"


@pytest.mark.parametrize(("number", "commanded"), [(0.0, -1), (0.5, -1), (0.51, 1), (1.0, 1), (-1.0, -1)])
def test_a_twin_is_arranged_by_its_seed_and_grips_as_bridges_data(made, number, commanded):
    env = ManiSkillEnv(TWIN, image_size=32)
    assert made["obs_mode"] == "rgb+segmentation" and made["control_mode"].startswith("arm_pd_ee_target_delta_pose")
    observation, _ = env.reset(seed=5)
    ((seed, options),) = made["env"].asked
    assert seed == 5 and options["episode_id"].tolist() == [5] and options["reconfigure"]
    assert observation in env.observation_space and observation["images"].shape == (1, 32, 32, 3), "4:3 is squeezed"
    *_, info = env.step(np.append(np.full(6, 0.25), number))
    np.testing.assert_allclose(made["env"].asked[1], [0.25] * 6 + [commanded])
    assert info["executed_action"][-1] == np.float32(number)


def test_without_the_twins_assets_the_remedy_is_named(tmp_path, monkeypatch):
    """Instead of ManiSkill's question on the terminal; and so for what a report tells."""
    monkeypatch.setenv("MS_ASSET_DIR", str(tmp_path))
    monkeypatch.setattr(adapter, "load_maniskill", lambda: None)
    monkeypatch.setattr(simulator, "backend", lambda field, asked: f"{field} {asked}")
    for ask in (lambda: make_env(TaskConfig(TWIN)), lambda: backends(TaskConfig(TWIN))):
        with refused("assets bridge") as info:
            ask()
        assert info.value.field == "assets bridge"
    (tmp_path / "data/tasks/bridge_v2_real2sim_dataset").mkdir(parents=True)
    for part in BRIDGE.parts[:3]:
        (tmp_path / part).mkdir()
    with refused("assets bridge"):
        make_env(TaskConfig(TWIN))
    assert backends(TaskConfig(PANDA)) == "sim_backend cpu, render_backend auto, a scene per episode"


@pytest.mark.parametrize("option", [{"blank": (1, 2)}, {"cue": (1, 2)}, {"delay": (1, 2)}, {"palette": ("red",)}])
def test_what_maniskill_fixes_is_refused(option):
    with pytest.raises(MuvlaError) as info:
        make_env(TaskConfig(PANDA, **option))
    assert info.value.field == f"task.{next(iter(option))}"


def test_an_unknown_task_is_refused():
    with refused("task.name"):
        ManiSkillEnv("PickCube-v2")
