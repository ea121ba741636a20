"""ManiSkill, SAPIEN and the suite, which are imported when an environment is made.

A missing package, driver or asset gives a MuvlaError with its remedy.
"""

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
from muvla.envs.conventions import Conventions
from muvla.envs.mikasa.assets import BULB, LAMP
from muvla.envs.mikasa.tasks import MikasaTask
from muvla.errors import MuvlaError, unknown_name

_HUMAN_VIEW = 16  # pixels of the image that render() draws and nobody uses; a small image costs half the time

# Part of the backends' names: older rows reused scenes, and must not be mixed with new rows.
SCENES = "a scene per episode"
# ManiSkill's Panda under MIKASA's controller: ±0.1 m, ±0.1 rad, gripper position (μVLA spec 4.4).
PANDA = Conventions(
    control_mode="pd_ee_delta_pose", action="delta", frame="base", gripper="positive_opens", units="normalized", fps=20
)

_ON_A_CPU = (
    'ask for physics on the CPU: a new Protocol with TaskConfig(…, physics="cpu"), or the protocol '
    'mikasa-remember-color3-quick-rh@1; published protocols have physics="gpu", whose episodes are others'
)
_BACKENDS = {
    "sim_backend": {"cpu": "physx_cpu", "gpu": "physx_cuda"},
    "render_backend": {"cpu": "sapien_cpu", "gpu": "sapien_cuda"},
}


class ActionTap(gymnasium.Wrapper):
    """The innermost wrapper: records the action that the suite's wrappers let through."""

    applied: np.ndarray

    def step(self, action):
        self.applied = action
        return self.env.step(action)


def build(task: MikasaTask, step_limit: int, sim_backend: str, render_backend: str) -> tuple[gymnasium.Env, ActionTap]:
    """Make the suite's environment in its wrappers, in the published order (μVLA spec 6.1).

    Args:
        task: the task.
        step_limit: most steps of an episode.
        sim_backend: `cpu` or `gpu`.
        render_backend: `cpu`, `gpu` or `auto`.

    Returns:
        The environment, and the tap inside the wrappers.
    """
    wrap = load_suite()
    require(task.assets)
    # The suite computes success together with the reward.
    tap = ActionTap(make(task.name, step_limit, sim_backend, render_backend, reward_mode="normalized_dense"))
    return wrap(tap, include_overlays=False), tap  # overlays are text on the human view


def require(assets: Iterable[AssetSet]) -> None:
    """Raises MuvlaError for missing assets; ManiSkill would ask on the terminal whether to download them."""
    for asset_set in assets:
        asset_set.require()


def make(name: str, step_limit: int, sim_backend: str, render_backend: str, **options: Any) -> gymnasium.Env:
    """Make one of ManiSkill's environments.

    Args:
        name: id in gymnasium's registry.
        step_limit: most steps of an episode.
        sim_backend: `cpu` or `gpu`.
        render_backend: `cpu`, `gpu` or `auto`.
        options: further arguments of gymnasium.make, which replace the defaults here.
    """
    common = {"obs_mode": "rgb", "control_mode": PANDA.control_mode}
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
    except RuntimeError as error:  # SAPIEN's error for a missing or old Vulkan driver
        raise MuvlaError(
            "renderer",
            got=str(error).strip(),
            expected="a Vulkan driver: a GPU's, or Mesa 24.3 or newer for the CPU",
            remedy="run `sudo bash scripts/install-system-packages.sh`, or install the GPU's driver",
        ) from error


def blind(base: Any) -> None:
    """Replace the cameras of a ManiSkill environment by black images; everything else stays.

    Raises MuvlaError on GPU physics, where rendering is part of the physics (μVLA spec 6.1).
    """
    import torch

    if base.gpu_sim_enabled:
        raise MuvlaError("frames", got=False, expected="frames, on GPU physics", remedy="ask for physics on the CPU")
    black = {
        camera: {channel: torch.zeros_like(picture) for channel, picture in pictures.items()}
        for camera, pictures in base._get_obs_sensor_data().items()
    }
    base.capture_sensor_data = lambda: None
    base._get_obs_sensor_data = lambda apply_texture_transforms=True: black


def load_maniskill() -> None:
    """Import ManiSkill, which registers its tasks with gymnasium."""
    # SAPIEN logs to the terminal what its exceptions say.
    os.environ.setdefault("MS_RENDERER_LOG_LEVEL", "off")
    try:
        import mani_skill.envs  # noqa: F401
    except (ImportError, OSError) as error:
        raise _missing(error) from error


def load_suite() -> Callable[..., gymnasium.Env]:
    """Import the suite, which registers its tasks with gymnasium; returns the suite's wrapper function."""
    load_maniskill()  # first: the suite reports a missing ManiSkill less clearly
    # At every step the suite's wrappers read attributes through each other, which gymnasium deprecates.
    warnings.filterwarnings("ignore", message=".*to get variables from other wrappers is deprecated.*")
    try:
        from mikasa_robo_suite.vla.utils import apply_wrappers as suite
        from mikasa_robo_suite.vla.utils import shapes
    except (ImportError, OSError) as error:
        raise _missing(error) from error
    # The suite's table lacks this task; it is wrapped as ShellGameTouch and ShellGamePush (spec 6.1).
    suite.VLA_WRAPPER_CONFIGS.setdefault("ShellGamePick-VLA-v0", suite.VLA_WRAPPER_CONFIGS["ShellGamePush-VLA-v0"])
    # The suite looks for the bulb in its own folder, and its package does not contain the bulb.
    lamp = getattr(shapes.build_color_switch_lamp, "func", shapes.build_color_switch_lamp)
    shapes.build_color_switch_lamp = partial(lamp, bulb_asset_path=str(LAMP.folder / BULB))
    return suite.apply_mikasa_vla_wrappers


def _missing(error: ImportError | OSError) -> MuvlaError:
    if isinstance(error, ModuleNotFoundError):
        return MuvlaError(
            "simulator", got=str(error), expected="ManiSkill 3.0.1 and mikasa-robo-suite 1.0.0", remedy="run `make sim`"
        )
    return MuvlaError(
        "simulator",
        got=str(error),
        expected="the shared libraries that the simulator loads",
        remedy="run `sudo bash scripts/install-system-packages.sh`",
    )


def backends(task: TaskConfig, assets: Iterable[AssetSet]) -> str:
    """Names of the physics and the render backend on this machine, and the content of the assets, for provenance.

    Raises MuvlaError where the simulator or an asset is missing.
    """
    names = [backend("sim_backend", task.physics or "cpu"), backend("render_backend", "auto"), SCENES]
    return ", ".join([*names, *(str(content(asset_set)) for asset_set in assets)])


def backend(field: str, asked: str) -> str:
    """ManiSkill's name of a backend. Raises MuvlaError without a GPU where ManiSkill would silently use the CPU."""
    names = _BACKENDS[field]
    if asked not in ("auto", *names):
        raise unknown_name(field, asked, ("auto", *names))
    usable = _has_gpu()
    if asked == "gpu" and not usable:
        raise MuvlaError(field, got="gpu", expected="a CUDA device that torch and SAPIEN see", remedy=_ON_A_CPU)
    return names["gpu" if usable and asked != "cpu" else "cpu"]


def _has_gpu() -> bool:
    import torch

    try:
        import sapien
    except (ImportError, OSError) as error:
        raise _missing(error) from error
    try:
        return torch.cuda.is_available() and sapien.Device("cuda").can_render()
    except RuntimeError:  # SAPIEN finds no such device
        return False
