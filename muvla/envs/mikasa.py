"""MIKASA-Robo's RememberColor tasks as muvla environments (mikasa-robo-suite 1.0.0 on ManiSkill 3.0.1).

Legend: V cameras (2: base, wrist), h×w image, Q proprio dim (7), A action dim (7), N cubes.

Neither the suite nor ManiSkill is imported before an environment is made. SAPIEN keeps global state: one environment
per process (`muvla.envs.workers`).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from PIL import Image

from muvla.config import TaskConfig
from muvla.envs.experts import reach
from muvla.envs.instructions import INSTRUCTIONS
from muvla.envs.phases import NO_OP_PHASES, Phase
from muvla.errors import MuvlaError

CAMERA_SIZE = 128  # pixels, square: what the suite's two cameras give
PROPRIO_DIM = 7  # xyz, roll-pitch-yaw, sum of the two finger positions; world frame (μVLA spec 4.4)
ACTION_DIM = 7  # pd_ee_delta_pose: ±0.1 m, ±0.1 rad, gripper position (μVLA spec 4.4)
NO_CHOICE = -1
_HUMAN_VIEW = 16  # pixels of the picture that render() makes; nobody looks at it, and a small one costs half

_BACKENDS = {
    "sim_backend": {"cpu": "physx_cpu", "gpu": "physx_cuda"},
    "render_backend": {"cpu": "sapien_cpu", "gpu": "sapien_cuda"},
}


@dataclass(frozen=True)
class MikasaTask:
    """What is known of a task before the simulator runs."""

    name: str
    objects: int  # N
    step_limit: int = 25  # μVLA spec 6.1

    @property
    def chance(self) -> float:
        """First-choice accuracy without memory, 1/N; the success rate of several touches lies above (spec 6.1)."""
        return 1 / self.objects


MIKASA_TASKS = {task.name: task for task in (MikasaTask(f"RememberColor{n}-VLA-v0", n) for n in (3, 5, 9))}


def make_mikasa(task: TaskConfig, image_size: int | None = None) -> MikasaEnv:
    """The environment of a TaskConfig. Raises MuvlaError where it changes what the suite's own class fixes."""
    for name in ("cue", "delay", "palette"):
        if getattr(task, name) is not None:
            raise MuvlaError(
                f"task.{name}", got=getattr(task, name), expected=f"null for {task.name}: the suite fixes it",
                remedy=f"leave task.{name} out, or take a task of the recall suite, where it can be set",
            )  # fmt: skip
    return MikasaEnv(task.name, image_size, sim_backend=task.physics or "cpu")


class MikasaEnv(gymnasium.Env):
    """Observation: images (V, h, w, 3) uint8, base camera first; proprio (Q,) float32. Action: (A,) in [-1, 1].

    `info` is RecallEnv's. A cube is named by the number of its colour in the suite (0 red, 1 lime, 2 blue, ...), not by
    its place, which is drawn anew for the decision: `target` is the cued colour, `choice` the colour of the first cube
    touched in the decision phase (the nearest with the tool centre point within 5 cm of its centre), -1 before.
    `executed_action` is what reached the simulator: in the no-op phases the suite's wrapper replaces all seven numbers
    by 0. For the arm that is "stay"; the gripper's number is a position, and 0 moves it from open to half open.
    `expert_action` is the expert's in every phase. While the cubes are hidden it goes for the place where the target
    will appear, which the simulator has drawn at reset (`initial_poses`) and no frame shows before the decision.

    The suite does not end an episode at success: `terminated` stays False, `truncated` comes at the step limit.

    Places and phase lengths are drawn by torch on the physics device, and CUDA draws others from the same seed: so the
    physics device is declared (`TaskConfig.physics`) and never chosen by what is there. `render_backend="auto"` takes
    the GPU if one is there. What was taken is in the attributes `sim_backend` and `render_backend`.

    Raises MuvlaError: unknown task or backend, simulator not installed, no renderer.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (gymnasium's own convention)

    def __init__(
        self, task: str, image_size: int | None = None, render_backend: str = "auto", sim_backend: str = "cpu"
    ):
        if task not in MIKASA_TASKS:
            raise MuvlaError(
                "task.name", got=task, expected=f"one of {', '.join(MIKASA_TASKS)}", remedy="correct the name"
            )
        self.task = MIKASA_TASKS[task]
        self.instruction = INSTRUCTIONS["RememberColor"]
        self.step_limit = self.task.step_limit
        self.image_size = image_size or CAMERA_SIZE
        self.observation_space = spaces.Dict(
            {
                "images": spaces.Box(0, 255, (2, self.image_size, self.image_size, 3), np.uint8),
                "proprio": spaces.Box(-np.inf, np.inf, (PROPRIO_DIM,), np.float32),
            }
        )
        self.action_space = spaces.Box(-1, 1, (ACTION_DIM,), np.float32)
        self._env, self._tap = _build(self.task, sim_backend, render_backend)
        self._base = self._env.unwrapped
        self.sim_backend: str = self._base.backend.sim_backend
        self.render_backend: str = self._base.backend.render_backend
        self.choice = NO_CHOICE

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """The episode is a function of its seed, 0 to 2³²−1, alone; without one, gymnasium's generator draws it."""
        super().reset(seed=seed)
        raw, info = self._env.reset(seed=int(self.np_random.integers(2**31)) if seed is None else int(seed))
        self.cue_length = int(self._base.cue_steps_per_env[0])
        self.delay_length = int(self._base.empty_steps_per_env[0])
        self.target = int(self._base.true_color_indices[0])
        self.choice = NO_CHOICE
        self._take(raw, info)
        return self._observation(), self._info(np.zeros(ACTION_DIM, dtype=np.float32))

    def step(self, action: np.ndarray):
        raw, reward, terminated, truncated, info = self._env.step(np.clip(np.asarray(action, dtype=np.float32), -1, 1))
        # Part of the physics for tasks that hide objects: there it is render() that commits their poses, and without it
        # they fall (μVLA spec 6.1). RememberColor's frames are the same with and without.
        self._env.render()
        self._take(raw, info)
        if self.choice == NO_CHOICE and self.phase is Phase.DECISION:
            distances = np.linalg.norm(self.places() - self._proprio[:3], axis=1)
            if distances.min() <= self._base.GOAL_THRESH:
                self.choice = int(distances.argmin())
        executed = np.array(self._tap.applied, dtype=np.float32).reshape(ACTION_DIM)
        return self._observation(), float(reward), bool(terminated), bool(truncated), self._info(executed)

    def close(self) -> None:
        self._env.close()

    @property
    def provenance(self) -> dict[str, Any]:
        """What the episodes are made with: wrappers, outermost first, and what could draw the pictures here."""
        import sapien

        env, wrappers = self._env, []
        while isinstance(env, gymnasium.Wrapper):
            wrappers.append(type(env).__name__)
            env = env.env
        summary = sapien.render.get_device_summary().splitlines()
        return {"wrappers": wrappers, "renderers": [line[5:] for line in summary if line.startswith("GPU: ")]}

    @property
    def phase(self) -> Phase:
        """Of the current observation, and so of the action that answers it."""
        if self._elapsed < self.cue_length:
            return Phase.CUE
        return Phase.DELAY if self._elapsed < self.cue_length + self.delay_length else Phase.DECISION

    def places(self) -> np.ndarray:
        """Centres of the cubes (N, 3), metres, by colour: where they are, or, while hidden, where they will appear."""
        if self.phase in NO_OP_PHASES:
            places = [self._base.initial_poses[colour][0] for colour in range(self.task.objects)]
        else:
            places = [self._base.cubes[colour].pose.p[0] for colour in range(self.task.objects)]
        return np.stack([place.cpu().numpy() for place in places])

    def expert_action(self) -> np.ndarray:
        return reach(self._proprio[:3], self.places()[self.target])

    def _take(self, raw: dict[str, Any], info: dict[str, Any]) -> None:
        """Copies out of the simulator's buffers: rgb (1, h, w, 2·3), proprio (1, Q), and what `info` is made of."""
        rgb = raw["rgb"][0].cpu().numpy()
        self._frames = np.ascontiguousarray(rgb.reshape(*rgb.shape[:2], 2, 3).transpose(2, 0, 1, 3))
        self._proprio = raw["proprio"][0].cpu().numpy().astype(np.float32, copy=True)
        self._elapsed = int(info["elapsed_steps"][0])
        self._success = bool(info["success"][0])

    def _observation(self) -> dict[str, np.ndarray]:
        frames, size = self._frames, self.image_size
        if size != frames.shape[1]:
            frames = np.stack([Image.fromarray(f).resize((size, size), Image.Resampling.LANCZOS) for f in frames])
        return {"images": frames, "proprio": self._proprio}

    def _info(self, executed: np.ndarray) -> dict[str, Any]:
        return {
            "instruction": self.instruction,
            "phase": self.phase,
            "target": self.target,
            "choice": self.choice,
            "success": self._success,
            "cue_length": self.cue_length,
            "delay_length": self.delay_length,
            "executed_action": executed,
            "expert_action": self.expert_action(),
        }


class _ActionTap(gymnasium.Wrapper):
    """Innermost, under the suite's wrappers: sees the action that they let through."""

    applied: np.ndarray

    def step(self, action):
        self.applied = action
        return self.env.step(action)


def _build(task: MikasaTask, sim_backend: str, render_backend: str) -> tuple[gymnasium.Env, _ActionTap]:
    """The suite's environment in its own wrappers, in the published order (μVLA spec 6.1), and the tap inside them."""
    wrap = _load_suite()
    sim_backend = _backend("sim_backend", sim_backend)
    render_backend = _backend("render_backend", render_backend)
    try:
        tap = _ActionTap(
            gymnasium.make(
                task.name, obs_mode="rgb", control_mode="pd_ee_delta_pose", num_envs=1, render_mode="rgb_array",
                reward_mode="normalized_dense", max_episode_steps=task.step_limit, sim_backend=sim_backend,
                render_backend=render_backend,
                human_render_camera_configs={"width": _HUMAN_VIEW, "height": _HUMAN_VIEW},
            )
        )  # fmt: skip
    except RuntimeError as error:  # SAPIEN's only word for a missing or too old Vulkan driver
        raise MuvlaError(
            "renderer", got=str(error).strip(), expected="a Vulkan driver: a GPU's, or Mesa 24.3 or newer for the CPU",
            remedy="run `sudo bash scripts/install-system-packages.sh`, or install the GPU's driver",
        ) from error  # fmt: skip
    return wrap(tap, include_overlays=False), tap  # overlays are text on the human view


def _load_suite() -> Callable[..., gymnasium.Env]:
    """Imports the suite, which registers its tasks with gymnasium; returns its wrapper function."""
    # SAPIEN logs to the terminal what its exceptions say anyway.
    os.environ.setdefault("MS_RENDERER_LOG_LEVEL", "off")
    # The suite's wrappers read through each other in gymnasium's old way, at every step.
    warnings.filterwarnings("ignore", message=".*to get variables from other wrappers is deprecated.*")
    try:
        import mani_skill  # noqa: F401 (first, because the suite reports its absence in less clear words)
        from mikasa_robo_suite.vla.utils.apply_wrappers import apply_mikasa_vla_wrappers
    except (ImportError, OSError) as error:
        raise _not_there(error) from error
    return apply_mikasa_vla_wrappers


def _not_there(error: ImportError | OSError) -> MuvlaError:
    if isinstance(error, ModuleNotFoundError):
        return MuvlaError(
            "simulator", got=str(error), expected="ManiSkill 3.0.1 and mikasa-robo-suite 1.0.0", remedy="run `make sim`"
        )
    return MuvlaError(
        "simulator", got=str(error), expected="the shared libraries that it loads",
        remedy="run `sudo bash scripts/install-system-packages.sh`",
    )  # fmt: skip


def backends(task: TaskConfig) -> str:
    """What an environment of this task, made here, computes and renders with; for provenance. Raises MuvlaError where
    the simulator is not installed."""
    return f"{_backend('sim_backend', task.physics or 'cpu')}, {_backend('render_backend', 'auto')}"


def _backend(field: str, asked: str) -> str:
    """ManiSkill's name of a backend. Asked for a GPU that is not there, ManiSkill would take the CPU; this raises."""
    names = _BACKENDS[field]
    if asked not in ("auto", *names):
        raise MuvlaError(field, got=asked, expected=f"one of auto, {', '.join(names)}", remedy="correct it")
    there = _gpu_is_there()
    if asked == "gpu" and not there:
        raise MuvlaError(field, got="gpu", expected="a CUDA device that torch and SAPIEN see", remedy="ask for cpu")
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
