"""ManiSkill, SAPIEN and the suite: imported when an environment is made, wrapped as published, or refused clearly."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import gymnasium
import numpy as np

from muvla.config import TaskConfig
from muvla.envs.assets import AssetSet, content
from muvla.envs.mikasa.assets import BULB, LAMP
from muvla.envs.mikasa.tasks import MikasaTask
from muvla.errors import MuvlaError

_HUMAN_VIEW = 16  # pixels of the picture that render() makes; nobody looks at it, and a small one costs half

SCENES = "a scene per episode"  # rows of before, where a scene was played in again, are no part of the same result

_ON_A_CPU = (
    'ask for cpu: a Protocol of one\'s own with TaskConfig(…, physics="cpu"), or mikasa-remember-color3-quick-rh@1, '
    'which has it; the published ones have physics="gpu", and CUDA draws other episodes from the same seeds'
)
_BACKENDS = {
    "sim_backend": {"cpu": "physx_cpu", "gpu": "physx_cuda"},
    "render_backend": {"cpu": "sapien_cpu", "gpu": "sapien_cuda"},
}


class ActionTap(gymnasium.Wrapper):
    """Innermost, under the suite's wrappers: sees the action that they let through."""

    applied: np.ndarray

    def step(self, action):
        self.applied = action
        return self.env.step(action)


def build(task: MikasaTask, step_limit: int, sim_backend: str, render_backend: str) -> tuple[gymnasium.Env, ActionTap]:
    """The suite's environment in its own wrappers, in the published order (μVLA spec 6.1), and the tap inside them."""
    wrap = load_suite()
    require(task.assets)
    # The suite's success is computed with the reward.
    tap = ActionTap(make(task.name, step_limit, sim_backend, render_backend, reward_mode="normalized_dense"))
    return wrap(tap, include_overlays=False), tap  # overlays are text on the human view


def require(assets: Iterable[AssetSet]) -> None:
    """Raises MuvlaError for one that is not there; ManiSkill would ask on the terminal whether to download it."""
    for asset_set in assets:
        asset_set.require()


def make(name: str, step_limit: int, sim_backend: str, render_backend: str, **options: Any) -> gymnasium.Env:
    """One of ManiSkill's environments. `options` go over what is the same for all."""
    common = {"obs_mode": "rgb", "control_mode": "pd_ee_delta_pose"}
    sim_backend = backend("sim_backend", sim_backend)
    render_backend = backend("render_backend", render_backend)
    try:
        return gymnasium.make(
            name,
            num_envs=1,
            render_mode="rgb_array",
            max_episode_steps=step_limit,
            sim_backend=sim_backend,
            render_backend=render_backend,
            human_render_camera_configs={"width": _HUMAN_VIEW, "height": _HUMAN_VIEW},
            **(common | options),
        )
    except RuntimeError as error:  # SAPIEN's only word for a missing or too old Vulkan driver
        raise MuvlaError(
            "renderer",
            got=str(error).strip(),
            expected="a Vulkan driver: a GPU's, or Mesa 24.3 or newer for the CPU",
            remedy="run `sudo bash scripts/install-system-packages.sh`, or install the GPU's driver",
        ) from error


def blind(base: Any) -> None:
    """Lets a ManiSkill environment answer with black pictures instead of taking any: all but the cameras stays.

    Raises MuvlaError on GPU physics, where taking pictures is part of what happens (μVLA spec 6.1).
    """
    import torch

    if base.gpu_sim_enabled:
        raise MuvlaError("frames", got=False, expected="frames, on GPU physics", remedy="ask for physics on the CPU")
    black = {
        camera: {kind: torch.zeros_like(picture) for kind, picture in pictures.items()}
        for camera, pictures in base._get_obs_sensor_data().items()
    }
    base.capture_sensor_data = lambda: None
    base._get_obs_sensor_data = lambda apply_texture_transforms=True: black


def load_maniskill() -> None:
    """Imports ManiSkill, which registers its tasks with gymnasium."""
    # SAPIEN logs to the terminal what its exceptions say anyway.
    os.environ.setdefault("MS_RENDERER_LOG_LEVEL", "off")
    try:
        import mani_skill.envs  # noqa: F401
    except (ImportError, OSError) as error:
        raise _not_there(error) from error


def load_suite() -> Callable[..., gymnasium.Env]:
    """Imports the suite, which registers its tasks with gymnasium; returns its wrapper function."""
    load_maniskill()  # first, because the suite reports its absence in less clear words
    # The suite's wrappers read through each other in gymnasium's old way, at every step.
    warnings.filterwarnings("ignore", message=".*to get variables from other wrappers is deprecated.*")
    try:
        from mikasa_robo_suite.vla.utils import apply_wrappers as suite
        from mikasa_robo_suite.vla.utils import shapes
    except (ImportError, OSError) as error:
        raise _not_there(error) from error
    # The suite's own table lacks this one; it is wrapped as its two sisters (spec 6.1).
    suite.VLA_WRAPPER_CONFIGS.setdefault("ShellGamePick-VLA-v0", suite.VLA_WRAPPER_CONFIGS["ShellGamePush-VLA-v0"])
    # It looks for the bulb in its own folder, where its package has none.
    lamp = getattr(shapes.build_color_switch_lamp, "func", shapes.build_color_switch_lamp)
    shapes.build_color_switch_lamp = partial(lamp, bulb_asset_path=str(LAMP.folder / BULB))
    return suite.apply_mikasa_vla_wrappers


def _not_there(error: ImportError | OSError) -> MuvlaError:
    if isinstance(error, ModuleNotFoundError):
        return MuvlaError(
            "simulator", got=str(error), expected="ManiSkill 3.0.1 and mikasa-robo-suite 1.0.0", remedy="run `make sim`"
        )
    return MuvlaError(
        "simulator",
        got=str(error),
        expected="the shared libraries that it loads",
        remedy="run `sudo bash scripts/install-system-packages.sh`",
    )


def backends(task: TaskConfig, assets: Iterable[AssetSet]) -> str:
    """What an environment of this task, made here, computes and renders with, that every episode has a scene of its
    own, and the content of the assets that it needs; for provenance. Raises MuvlaError where the simulator or an asset
    is not there."""
    told = [backend("sim_backend", task.physics or "cpu"), backend("render_backend", "auto"), SCENES]
    return ", ".join([*told, *(str(content(asset_set)) for asset_set in assets)])


def backend(field: str, asked: str) -> str:
    """ManiSkill's name of a backend. Asked for a GPU that is not there, ManiSkill would take the CPU; this raises."""
    names = _BACKENDS[field]
    if asked not in ("auto", *names):
        raise MuvlaError(field, got=asked, expected=f"one of auto, {', '.join(names)}", remedy="correct it")
    there = _gpu_is_there()
    if asked == "gpu" and not there:
        raise MuvlaError(field, got="gpu", expected="a CUDA device that torch and SAPIEN see", remedy=_ON_A_CPU)
    return names["gpu" if there and asked != "cpu" else "cpu"]


def _gpu_is_there() -> bool:
    import torch

    try:
        import sapien
    except (ImportError, OSError) as error:
        raise _not_there(error) from error
    try:
        return torch.cuda.is_available() and sapien.Device("cuda").can_render()
    except RuntimeError:  # SAPIEN finds no such device
        return False
