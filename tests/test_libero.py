"""The LIBERO adapter against a simulator that is none, and, marked `sim`, what only LIBERO itself can tell."""

import json
import os
import runpy
import sys
import types
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from helpers.errors import refused
from helpers.libero import Fake
from helpers.paths import ROOT
from muvla.config import DatasetConfig, TaskConfig
from muvla.data.collect import collect
from muvla.envs.assets import Content
from muvla.envs.libero import env as adapter
from muvla.envs.libero import simulator
from muvla.envs.libero.env import LiberoEnv, axis_angle
from muvla.envs.libero.simulator import PLACEMENTS, Simulator
from muvla.envs.libero.tasks import LIBERO_TASKS, STEP_LIMITS
from muvla.envs.phases import Phase
from muvla.envs.recall.env import RecallEnv
from muvla.envs.registry import make_env, task_info
from muvla.errors import MuvlaError

TASK = "libero_spatial-0"


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(adapter, "open_simulator", Fake)


@pytest.fixture
def env(fake):
    return LiberoEnv(TASK)


def test_tasks():
    """As the published suites have them; the words are the files', not those of the task's definition."""
    counts = {suite: sum(task.suite == suite for task in LIBERO_TASKS.values()) for suite in STEP_LIMITS}
    assert counts == {"libero_spatial": 10, "libero_object": 10, "libero_goal": 10, "libero_10": 10, "libero_90": 90}
    assert len({task.file for task in LIBERO_TASKS.values()}) == len(LIBERO_TASKS) == 130
    assert STEP_LIMITS == {
        "libero_spatial": 220,
        "libero_object": 280,
        "libero_goal": 300,
        "libero_10": 520,
        "libero_90": 400,
    }
    assert LIBERO_TASKS["libero_goal-0"].instruction == "open the middle drawer of the cabinet"
    assert LIBERO_TASKS["libero_10-2"].instruction == "turn on the stove and put the moka pot on it"
    assert LIBERO_TASKS["libero_90-0"].instruction == "close the top drawer of the cabinet"
    assert all(task.instruction == task.instruction.lower() for task in LIBERO_TASKS.values())
    assert all("scene" not in task.instruction for task in LIBERO_TASKS.values())


def test_ten_steps_that_no_policy_sees(env):
    observation, info = env.reset(seed=7)
    assert env._simulator.starts == [7] and len(env._simulator.actions[0]) == 10
    assert all(np.array_equal(action, [0, 0, 0, 0, 0, 0, -1]) for action in env._simulator.actions[0])
    assert observation["proprio"][0] == 10, "what is seen is what they lead to"
    observation, *_ = env.step(np.zeros(7))
    assert observation["proprio"][0] == 11
    np.testing.assert_array_equal(info["executed_action"], 0)


def test_the_seed_is_the_number_of_the_initial_state(env):
    for seed in (0, 49, 3):
        env.reset(seed=seed)
    assert env._simulator.starts == [0, 49, 3]
    with refused("episode of libero_spatial-0"):
        env.reset(seed=50)
    env.reset()
    assert 0 <= env._simulator.starts[-1] < 50


@pytest.mark.parametrize(
    ("number", "sent", "told"), [(1, -1, 1), (0.7, -1, 1), (0.5, 0, 0.5), (0.2, 1, 0), (0, 1, 0), (-1, 1, 0)]
)
def test_the_gripper_of_the_data_is_turned_into_the_simulators(env, number, sent, told):
    """1 opens and 0 closes in the data; 1 closes and -1 opens in the simulator (μVLA spec 4.5)."""
    env.reset(seed=0)
    *_, info = env.step(np.array([2, -0.5, 0, 0.25, 0, -7, number]))
    np.testing.assert_allclose(env._simulator.actions[0][-1], [1, -0.5, 0, 0.25, 0, -1, sent])
    np.testing.assert_allclose(info["executed_action"], [1, -0.5, 0, 0.25, 0, -1, told])
    assert info["executed_action"].dtype == np.float32


def test_pictures_are_turned_by_half(env):
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    assert observation["images"].shape == (2, 256, 256, 3)
    bright = np.argwhere(observation["images"][..., 0] > 100)
    np.testing.assert_array_equal(bright, [[0, 255, 255], [1, 255, 255]])


def test_frames_come_at_the_size_asked_for(fake):
    env = make_env(TaskConfig(TASK), 32)
    observation, _ = env.reset(seed=0)
    assert env._simulator.size == 256, "rendered as ever, and made smaller"
    assert observation["images"].shape == (2, 32, 32, 3) and observation in env.observation_space


def test_rotation_is_axis_times_angle_up_to_a_whole_turn():
    rng = np.random.default_rng(0)
    for quaternion in rng.normal(size=(20, 4)):
        quaternion /= np.linalg.norm(quaternion)
        rotation = axis_angle(quaternion)
        assert np.linalg.norm(rotation) == pytest.approx(2 * np.arccos(quaternion[3]))
        turned = Rotation.from_rotvec(rotation).as_matrix()
        np.testing.assert_allclose(turned, Rotation.from_quat(quaternion).as_matrix(), atol=1e-9)
    down = [axis_angle(np.array([np.cos(e), 0, 0, np.sin(e)]))[0] for e in (-0.01, 0.01)]
    np.testing.assert_allclose(down, [np.pi + 0.02, np.pi - 0.02])  # on either side of π, and near each other
    np.testing.assert_array_equal(axis_angle(np.array([0, 0, 0, 1.0])), 0)
    np.testing.assert_array_equal(axis_angle(np.array([0, 0, 0, 1.0 + 1e-12])), 0)


def test_an_episode_ends_at_success_or_at_the_step_limit(fake, monkeypatch):
    env = LiberoEnv(TASK)
    env.reset(seed=0)
    ends = [env.step(np.zeros(7))[1:4] for _ in range(220)]
    assert ends == [(0.0, False, False)] * 219 + [(0.0, False, True)]
    monkeypatch.setattr(Fake, "succeeds_at", 12)
    env.reset(seed=0)
    ends = [env.step(np.zeros(7)) for _ in range(2)]
    assert [end[1:4] for end in ends] == [(0.0, False, False), (1.0, True, False)]
    assert [end[4]["success"] for end in ends] == [False, True]
    env.close()
    assert env._simulator.closed


def test_info_is_the_recall_suites_but_for_the_expert(env):
    recall = RecallEnv("RecallPosition3-v0").reset(seed=0)[1]
    _, info = env.reset(seed=0)
    assert set(info) == set(recall) - {"expert_action"} == set(env.step(np.zeros(7))[-1])
    assert info["instruction"] == LIBERO_TASKS[TASK].instruction == task_info(TASK).instruction
    assert (info["phase"], info["target"], info["choice"]) == (Phase.DECISION, None, -1)


@pytest.mark.parametrize(
    "option",
    [
        {"cue": (1, 2)},
        {"delay": (3, 3)},
        {"palette": ("red",)},
        {"physics": "gpu"},
        {"shift": "light"},
        {"step_limit": 9},
    ],
)
def test_what_libero_fixes_is_refused(option):
    with pytest.raises(MuvlaError) as info:
        make_env(TaskConfig(TASK, **option))
    assert info.value.field == f"task.{next(iter(option))}"


def test_unknown_tasks_are_refused():
    for find in (LiberoEnv, task_info):
        with pytest.raises(MuvlaError) as info:
            find("libero_spatial-10")
        assert info.value.field == "task.name" and "libero_spatial-1" in info.value.remedy


def test_there_is_no_expert_to_collect_from(tmp_path):
    with refused("data.dataset.task.name"):
        collect(DatasetConfig(TaskConfig(TASK), episodes=1), tmp_path)


# --- opening the simulator --------------------------------------------------------------------------------------------


@pytest.fixture
def some_assets(tmp_path, monkeypatch):
    """Folders of the right names."""
    for part in simulator.LIBERO.parts:
        (tmp_path / "assets" / part).mkdir(parents=True)
    monkeypatch.setenv("MUVLA_LIBERO_ASSETS", str(tmp_path / "assets"))
    return tmp_path / "assets"


def test_without_the_package_or_its_assets_the_remedy_is_named(some_assets, monkeypatch):
    monkeypatch.setattr(simulator, "find_spec", lambda name: None)
    with refused("simulator"):
        LiberoEnv(TASK)
    (some_assets / "scenes").rmdir()
    with refused("assets libero"):
        LiberoEnv(TASK)


def test_a_renderer_is_egl_or_what_was_asked_for(some_assets, monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    assert simulator.render_backend() == "egl"
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert simulator.backends().startswith("mujoco_cpu, osmesa, assets ")
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    with refused("MUJOCO_GL"):
        LiberoEnv(TASK)


def test_the_package_is_told_before_it_is_imported_what_it_would_ask_for(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setitem(sys.modules, "robosuite.macros_private", None)
    spec = types.SimpleNamespace(submodule_search_locations=[str(tmp_path / "site" / "libero")])
    monkeypatch.setattr(simulator, "find_spec", lambda name: spec)
    package = simulator._configure(tmp_path / "assets", "egl")
    assert package == tmp_path / "site" / "libero" / "libero" and os.environ["MUJOCO_GL"] == "egl"
    folder = os.environ["LIBERO_CONFIG_PATH"]
    told = json.loads(Path(folder, "config.yaml").read_text())
    assert folder.startswith(str(tmp_path / "cache")) and told["assets"] == str(tmp_path / "assets")
    assert set(told) == {"benchmark_root", "bddl_files", "init_states", "datasets", "assets"}
    simulator._configure(tmp_path / "others", "egl")
    assert os.environ["LIBERO_CONFIG_PATH"] != folder, "another installation leaves this one as it is"
    assert sys.modules["robosuite.macros_private"].FILE_LOGGING_LEVEL is None


@pytest.mark.parametrize("misses", [2, PLACEMENTS])
def test_every_start_draws_from_its_own_seed_and_ends(monkeypatch, misses):
    """A draw that does not fit is repeated, but not for ever."""

    class RandomizationError(Exception):
        pass

    errors = types.SimpleNamespace(RandomizationError=RandomizationError)
    for name in ("robosuite", "robosuite.utils"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "robosuite.utils.errors", errors)
    did = []

    def reset():
        did.append("reset")
        if did.count("reset") <= misses:
            raise RandomizationError

    inner = types.SimpleNamespace(reset=reset)
    outer = types.SimpleNamespace(env=inner, seed=lambda n: did.append(("seed", n)), set_init_state=did.append)
    one = Simulator(outer, ["state 0", "state 1"], "none")
    if misses == PLACEMENTS:
        with pytest.raises(RandomizationError):
            one.start(1)
        return
    one.start(1)
    assert did == [("seed", 1), "reset", "reset", "reset", "state 1"]


ASSETS = f"assets of {TASK}"


@pytest.mark.parametrize(
    ("error", "field", "got", "remedy"),
    [
        (FileNotFoundError("no file {}/scenes/floor.xml"), ASSETS, "scenes/floor.xml", "muvla assets fetch libero"),
        (
            ValueError("Error opening file '{}/scenes/floor.msh'"),
            ASSETS,
            "scenes/floor.msh",
            "muvla assets fetch libero",
        ),
        (AttributeError("no eglQueryString"), "renderer", "eglQueryString", "install-system-packages"),
        (ImportError("cannot initialize EGL"), "renderer", "cannot initialize EGL", "install-system-packages"),
    ],
)
def test_what_goes_wrong_in_opening_is_one_clear_error(some_assets, monkeypatch, tmp_path, error, field, got, remedy):
    """MuJoCo and robosuite raise such errors for a missing file of the assets and for OpenGL."""
    open_raises(type(error)(str(error).format(some_assets)), some_assets, monkeypatch, tmp_path)
    with refused(field) as info:
        LiberoEnv(TASK)
    assert got in info.value.got and remedy in info.value.remedy


def test_another_error_in_opening_is_left_as_it_is(some_assets, monkeypatch, tmp_path):
    error = ValueError("a bug")
    open_raises(error, some_assets, monkeypatch, tmp_path)
    with pytest.raises(ValueError) as info:
        LiberoEnv(TASK)
    assert info.value is error


def open_raises(error, some_assets, monkeypatch, tmp_path):
    """LIBERO's modules are replaced, so that opening a scene raises `error`."""

    def open_scene(**options):
        assert sys.modules["libero.libero"]._assets_path_cache == str(some_assets), "it would download them"
        assert options["bddl_file_name"].endswith(f"bddl_files/libero_spatial/{LIBERO_TASKS[TASK].file}.bddl")
        raise error

    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(simulator, "_configure", lambda assets, renderer: tmp_path)
    modules = {name: types.ModuleType(name) for name in ("libero", "libero.libero", "libero.libero.envs")}
    modules["libero"].libero = modules["libero.libero"]
    modules["libero.libero.envs"].OffScreenRenderEnv = open_scene
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize(
    ("modules", "field"),
    [({"libero": None}, "simulator"), ({}, "renderer")],
)
def test_what_goes_wrong_in_importing_is_one_clear_error(some_assets, monkeypatch, tmp_path, modules, field):
    """A module that is missing, or one that is there and cannot be loaded, as robosuite without its OpenGL."""
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(simulator, "_configure", lambda assets, renderer: tmp_path)
    empty = {name: types.ModuleType(name) for name in ("libero", "libero.libero", "libero.libero.envs")}
    empty["libero"].libero = empty["libero.libero"]
    for name, module in (empty | modules).items():
        monkeypatch.setitem(sys.modules, name, module)
    with refused(field):
        LiberoEnv(TASK)


def test_each_renderer_has_its_own_remedy():
    """scripts/install-system-packages.sh has EGL alone."""
    script = (ROOT / "scripts" / "install-system-packages.sh").read_text()
    assert "libegl1" in script and "osmesa" not in script
    egl, osmesa = (simulator._no_renderer(ImportError("x"), one).remedy for one in simulator.RENDERERS)
    assert egl.startswith("run `sudo bash scripts/install-system-packages.sh`")
    assert osmesa.startswith("install libosmesa6, or unset MUJOCO_GL")


def test_too_few_initial_states_are_refused(tmp_path):
    path = tmp_path / "few.pruned_init"
    torch.save(np.zeros((3, 5)), path)
    with refused(str(path)) as info:
        simulator._initial_states(path)
    assert "3" in info.value.got


def test_it_tells_what_it_is_made_of(env, some_assets, monkeypatch):
    assert env.provenance == {"wrappers": [], "renderers": ["Fake GPU"]}
    monkeypatch.setattr(adapter, "content", lambda assets: Content(1, "0" * 64, ("scenes/box.msh",)))
    assert env.provenance["stand_in_assets"] == ["scenes/box.msh"]


# --- with LIBERO ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.sim("libero")
def test_the_suites_list_is_the_packages(libero_assets):
    package = Path(find_spec("libero").submodule_search_locations[0]) / "libero"
    theirs = runpy.run_path(str(package / "benchmark" / "libero_suite_task_map.py"))["libero_task_map"]
    for suite in STEP_LIMITS:
        assert [task.file for task in LIBERO_TASKS.values() if task.suite == suite] == theirs[suite]
    for task in LIBERO_TASKS.values():
        states = simulator._initial_states(package / "init_files" / task.suite / f"{task.file}.pruned_init")
        assert len(states) >= 50 and states.dtype == np.float64 and np.isfinite(states).all()
        assert (package / "bddl_files" / task.suite / f"{task.file}.bddl").exists()


@pytest.mark.skipif(os.environ.get("MUVLA_EVERY_TASK") != "1", reason="`make test-sim` runs it: it takes long")
@pytest.mark.slow
@pytest.mark.sim("libero")
def test_an_initial_state_is_the_same_whatever_came_before(libero_assets):
    one = simulator.open_simulator(LIBERO_TASKS["libero_goal-0"], camera_size=32)
    seen = []
    for number in (0, 3, 0):
        one.start(number)
        seen.append(one.step(adapter.STAY)[0])
    one.close()
    first, other, again = seen
    for name in (*adapter.CAMERAS, "robot0_eef_pos", "object-state"):
        np.testing.assert_array_equal(first[name], again[name])
    assert not np.array_equal(first["object-state"], other["object-state"])
    with refused("assets of libero_object-9") as info:
        LiberoEnv("libero_object-9")
    assert "orange_juice.xml" in info.value.got and "muvla assets fetch libero" in info.value.remedy
