"""A LIBERO task as a muvla environment (hf-libero 0.1.4 on robosuite 1.4.0 and MuJoCo).

Legend: V cameras (2: agent's view, wrist), h×w image, Q proprio dim (8), A action dim (7).
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from PIL import Image

from muvla.envs.actions import clipped
from muvla.envs.assets import content
from muvla.envs.base import NO_CHOICE
from muvla.envs.conventions import Conventions
from muvla.envs.libero.assets import LIBERO
from muvla.envs.libero.simulator import Raw, open_simulator
from muvla.envs.libero.tasks import INITIAL_STATES, LIBERO_TASKS
from muvla.envs.phases import Phase
from muvla.errors import MuvlaError, unknown_name

CAMERA_SIZE = 256  # rendered pixels, square, as in the published demonstrations and evaluations (μVLA spec 6.2)
CAMERAS = ("agentview_image", "robot0_eye_in_hand_image")
PROPRIO_DIM = 8  # position, axis-angle, the two finger positions; world frame (μVLA spec 4.5)
ACTION_DIM = 7  # position and rotation of OSC_POSE in [-1, 1], and the gripper: 0 closes, 1 opens
CONVENTIONS = Conventions(
    control_mode="OSC_POSE", action="delta", frame="world", gripper="positive_opens", units="normalized", fps=20
)
SETTLING = 10  # steps before the first query, in which objects come to rest (μVLA spec 6.2)
STAY = np.array([0, 0, 0, 0, 0, 0, -1.0])  # the simulator's action that keeps the gripper open and nothing else


class LiberoEnv(gymnasium.Env):
    """Observation: images (V, h, w, 3) uint8, the agent's view first; proprio (Q,) float32. Action: (A,) in [-1, 1].

    The conventions are those of the published demonstrations, as `muvla data import --schema libero` stores them:

    - Images are turned by 180° relative to the simulator's, so that they are upright.
    - The gripper's number is 0 to 1: less than a half closes, more opens, exactly a half keeps the state. The
    simulator's
      numbers are 1 to close, -1 to open and 0 to keep; `executed_action` holds 0, 1 or 0.5.
    - Proprio begins with the hand's position and its rotation as axis times angle, with the angle in [0, 2π]. A hand
      that points down has an angle near π, where [-π, π] would jump.

    An episode starts from one of the task's fixed initial states, and the seed is the state's number, 0 to 49. A state
    does not fix the places of fixtures. The simulator draws these places at every reset, and they are up to a tenth of
    the image. The published evaluations seed the generator once per task, so a trial depends on the trials before it.
    Here the state's number seeds the generator before every reset. The distribution and the first trial are the same,
    and nothing depends on order or workers. Ten steps follow that no policy sees. The episode ends at success
    (`terminated`) or at the step limit.

    `info` is a `StepInfo` without `expert_action`. Everything is visible at every step, so every phase is the decision;
    nothing is cued (`target` is None) and nothing is chosen.

    Raises MuvlaError: unknown task, missing simulator or assets, no renderer.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (gymnasium's own convention)

    def __init__(self, task: str, image_size: int | None = None):
        if task not in LIBERO_TASKS:
            raise unknown_name("task.name", task, LIBERO_TASKS, "muvla ls tasks")
        self.task = LIBERO_TASKS[task]
        self.instruction = self.task.instruction
        self.step_limit = self.task.step_limit
        self.image_size = image_size or CAMERA_SIZE
        self.observation_space = spaces.Dict(
            {
                "images": spaces.Box(0, 255, (len(CAMERAS), self.image_size, self.image_size, 3), np.uint8),
                "proprio": spaces.Box(-np.inf, np.inf, (PROPRIO_DIM,), np.float32),
            }
        )
        self.action_space = spaces.Box(-1, 1, (ACTION_DIM,), np.float32)
        self._simulator = open_simulator(self.task, CAMERA_SIZE)
        self.render_backend = self._simulator.render_backend

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """The seed is the number of the initial state; without a seed, gymnasium's generator draws the number."""
        super().reset(seed=seed)
        number = int(self.np_random.integers(INITIAL_STATES)) if seed is None else seed
        if number >= INITIAL_STATES:
            raise MuvlaError(
                f"episode of {self.task.name}",
                got=number,
                expected=f"an initial state, 0 to {INITIAL_STATES - 1}",
                remedy="choose protocol.seed and protocol.episodes within the initial states",
            )
        self._simulator.start(number)
        for _ in range(SETTLING):
            raw, success = self._simulator.step(STAY)
        self._steps = 0
        return _observation(raw, self.image_size), self._info(success, np.zeros(ACTION_DIM, dtype=np.float32))

    def step(self, action: np.ndarray):
        action = clipped(action, ACTION_DIM)
        grip = -np.sign(2 * action[-1] - 1)
        raw, success = self._simulator.step(np.append(action[:-1], grip).astype(np.float64))
        self._steps += 1
        executed = np.append(action[:-1], (1 - grip) / 2).astype(np.float32)
        truncated = not success and self._steps >= self.step_limit
        return _observation(raw, self.image_size), float(success), success, truncated, self._info(success, executed)

    def close(self) -> None:
        self._simulator.close()

    @property
    def provenance(self) -> dict[str, Any]:
        """Wrappers (none), renderer, and assets that are stand-ins."""
        stand_ins = {"stand_in_assets": list(content(LIBERO).stand_ins)} if content(LIBERO).stand_ins else {}
        return {"wrappers": [], "renderers": [self._simulator.renderer]} | stand_ins

    def _info(self, success: bool, executed: np.ndarray) -> dict[str, Any]:
        return {
            "instruction": self.instruction,
            "phase": Phase.DECISION,
            "target": None,
            "choice": NO_CHOICE,
            "success": success,
            "identity": None,
            "places_of": None,
            "blank_length": 0,
            "cue_length": 0,
            "delay_length": 0,
            "executed_action": executed,
        }


def _observation(raw: Raw, size: int) -> dict[str, np.ndarray]:
    frames = [raw[camera][::-1, ::-1] for camera in CAMERAS]
    if size != CAMERA_SIZE:
        frames = [Image.fromarray(f).resize((size, size), Image.Resampling.LANCZOS) for f in frames]
    rotation = axis_angle(raw["robot0_eef_quat"])
    proprio = np.concatenate([raw["robot0_eef_pos"], rotation, raw["robot0_gripper_qpos"]]).astype(np.float32)
    return {"images": np.stack(frames), "proprio": proprio}


def axis_angle(quaternion: np.ndarray) -> np.ndarray:
    """(x, y, z, w) → axis times angle (3,), the angle 2·arccos(w) in [0, 2π]."""
    w = float(np.clip(quaternion[3], -1, 1))
    sine = math.sqrt(1 - w * w)  # of half the angle
    return np.zeros(3) if sine == 0 else quaternion[:3] * (2 * math.acos(w) / sine)
