"""The adapter for all tasks of the suite; `muvla.envs.mikasa.families` holds the differences between families.

ManiSkill's tasks use the same adapter (`muvla.envs.maniskill`).

Legend: V cameras (2: base, wrist), h×w image, Q proprio dim (7), A action dim (7), N objects to choose among.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from PIL import Image

from muvla.envs.actions import clipped
from muvla.envs.base import NO_CHOICE
from muvla.envs.mikasa.appearance import change_appearance
from muvla.envs.mikasa.families import FAMILIES, Family
from muvla.envs.mikasa.simulator import blind, build
from muvla.envs.mikasa.stand_ins import stand_ins
from muvla.envs.mikasa.tasks import MIKASA_TASKS
from muvla.envs.phases import NO_OP_PHASES, Phase
from muvla.errors import unknown_name

ACTION_DIM = 7  # pd_ee_delta_pose: ±0.1 m, ±0.1 rad, gripper position (μVLA spec 4.4)


class MikasaEnv(gymnasium.Env):
    """Observation: images (V, h, w, 3) uint8, base camera first; proprio (Q,) float32. Action: (A,) in [-1, 1].

    `info` is a `StepInfo`, with these details:

    - Objects have their numbers in the suite. A cube is numbered by its colour (0 red, 1 lime, 2 blue, ...), a cup by
      its place (0 left, 1 centre, 2 right). `choice` is the first object that the tool centre point touches in the
      decision phase: the nearest one whose centre is within the family's `touch`.
    - In no-op phases the suite's wrapper replaces all seven numbers of an action by 0. For the arm, 0 means "stay". The
      gripper's number is a position, and 0 moves the gripper from open to half open. `free` tasks have no such wrapper:
      every action is executed, and cue and delay are only phases of what is shown.
    - `expert_action` is None where the task has no expert. While the objects are hidden, the expert moves to the place
      where the target will appear. The simulator drew that place at reset; no frame shows the place before the
      decision.
    - `instruction` is the sentence of the published data. Rotate's sentence names the angle of its episode.

    The suite defines success. Most families do not end an episode at success: `terminated` stays False, and `truncated`
    comes at the step limit. ShellGame tasks end at success; BlinkCountButtonPress and TimedTransfer end at success and
    at failure.

    torch draws places and phase lengths on the physics device, and CUDA draws other values from the same seed. So the
    physics device is declared (`TaskConfig.physics`), and never chosen by the hardware. The attributes `sim_backend`
    and `render_backend` name the backends in use, and `stand_in_assets` the assets that are stand-ins.

    Args:
        task: a name in `tasks`.
        image_size: pixels; None is the camera's size.
        render_backend: `cpu`, `gpu`, or `auto`: a GPU if there is one.
        sim_backend: `cpu` or `gpu`.
        lengths: `cue` and `delay` as ranges of steps, where the family draws them (`Family.settable`). The step limit
            grows with the longest phases, so that the decision has as many steps as in the published task.
        frames: False leaves out the cameras: images are black, and a step costs a fraction. Episodes on CPU physics
        stay
            the same; on GPU physics False is refused. No TaskConfig asks for False, and provenance records it.
        palette, shift: see `muvla.envs.mikasa.appearance`.
        limit: most steps of an episode; None is the task's limit.

    Raises:
        MuvlaError: unknown task or backend, simulator not installed, no renderer, no asset.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (gymnasium's own convention)
    tasks: ClassVar[Mapping[str, Any]] = MIKASA_TASKS
    families: ClassVar[Mapping[str, type[Family]]] = FAMILIES
    build = staticmethod(build)

    def __init__(
        self,
        task: str,
        image_size: int | None = None,
        render_backend: str = "auto",
        sim_backend: str = "cpu",
        lengths: dict[str, tuple[int, int]] | None = None,
        frames: bool = True,
        palette: tuple[str, ...] | None = None,
        shift: str | None = None,
        limit: int | None = None,
    ):
        if task not in self.tasks:
            raise unknown_name("task.name", task, self.tasks, "muvla ls tasks")
        self.task = self.tasks[task]
        self.image_size = image_size or self.task.camera
        shape = (self.task.cameras, self.image_size, self.image_size, 3)
        self.observation_space = spaces.Dict(
            {
                "images": spaces.Box(0, 255, shape, np.uint8),
                "proprio": spaces.Box(-np.inf, np.inf, (self.task.proprio,), np.float32),
            }
        )
        self.action_space = spaces.Box(-1, 1, (ACTION_DIM,), np.float32)
        family = self.families[self.task.family]
        self.step_limit = limit or self.task.step_limit + family.more_steps(lengths or {})
        self._env, self._tap = self.build(self.task, self.step_limit, sim_backend, render_backend)
        self._base = self._env.unwrapped
        self._family = family(self._base, self.task)
        self._family.set_lengths(lengths or {})
        self._altered = change_appearance(self._base, self.task, palette, shift)
        self._frames_wanted = frames
        if not frames:
            blind(self._base)
        self.sim_backend: str = self._base.backend.sim_backend
        self.render_backend: str = self._base.backend.render_backend
        self.stand_in_assets = stand_ins(self.task.assets)
        self.choice = NO_CHOICE

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """The episode is a function of its seed alone, 0 to 2³²−1; without a seed, gymnasium's generator draws one."""
        super().reset(seed=seed)
        seed = int(self.np_random.integers(2**31)) if seed is None else int(seed)
        # The scene is built again. A used scene keeps traces of its contacts, and the next episode would differ from
        # the seventh digit on: enough to change a policy's choice.
        raw, info = self._env.reset(seed=seed, options={"reconfigure": True, **(self._family.options(seed) or {})})
        self.cue_length, self.delay_length = self._family.lengths()
        self.target = self._family.target()
        self.choice = NO_CHOICE
        self._take(raw, info)
        return self._observation(), self._info(np.zeros(ACTION_DIM, dtype=np.float32))

    def step(self, action: np.ndarray):
        raw, reward, terminated, truncated, info = self._env.step(clipped(action, ACTION_DIM))
        # On a GPU, render() commits the poses of hidden objects; without the call the objects fall (μVLA spec 6.1). On
        # a CPU the call changes nothing but costs a third of a step's time.
        if self._base.gpu_sim_enabled:
            self._env.render()
        self._take(raw, info)
        if self.choice == NO_CHOICE and self.task.objects and self.phase is Phase.DECISION:
            self.choice = self._family.touched(self._proprio[:3])
        executed = np.array(self._tap.applied, dtype=np.float32).reshape(ACTION_DIM)
        return self._observation(), float(reward), bool(terminated), bool(truncated), self._info(executed)

    def close(self) -> None:
        self._env.close()

    @property
    def provenance(self) -> dict[str, Any]:
        """Wrappers, outermost first; renderers of this machine; changes of the suite's task; stand-in assets."""
        import sapien

        env, wrappers = self._env, []
        while isinstance(env, gymnasium.Wrapper):
            wrappers.append(type(env).__name__)
            env = env.env
        summary = sapien.render.get_device_summary().splitlines()
        record = {"wrappers": wrappers, "renderers": [line[5:] for line in summary if line.startswith("GPU: ")]}
        optional = {"altered": [*self._family.altered(), *self._altered], "stand_in_assets": list(self.stand_in_assets)}
        optional["pictures"] = "" if self._frames_wanted else "none taken"
        return record | {name: value for name, value in optional.items() if value}

    @property
    def phase(self) -> Phase:
        """The phase of the current observation, and so of the action that answers it."""
        if self._elapsed < self.cue_length:
            return Phase.CUE
        return Phase.DELAY if self._elapsed < self.cue_length + self.delay_length else Phase.DECISION

    def places(self) -> np.ndarray:
        """Centres of the objects (N, 3) in metres; of hidden objects, the places where they will appear."""
        return self._family.places(self.phase in NO_OP_PHASES)

    def expert_action(self) -> np.ndarray | None:
        return self._family.expert(self._proprio, self.phase in NO_OP_PHASES) if self.task.expert else None

    def _take(self, raw: dict[str, Any], info: dict[str, Any]) -> None:
        """Copy observation and `info` out of the simulator's buffers, which the next step overwrites."""
        self._frames, self._proprio = pictures(raw), proprioception(raw)
        self._elapsed = int(info["elapsed_steps"][0])
        self._success = bool(info["success"][0])
        self.instruction = self._family.instruction(info)
        self._family.settle(self.phase in NO_OP_PHASES)

    def _observation(self) -> dict[str, np.ndarray]:
        return {"images": resized(self._frames, self.image_size), "proprio": self._proprio}

    def _info(self, executed: np.ndarray) -> dict[str, Any]:
        return {
            "instruction": self.instruction,
            "phase": self.phase,
            "target": self.target,
            "choice": self.choice,
            "success": self._success,
            "identity": None,  # the target's number is the cue's
            "places_of": None,
            "blank_length": 0,
            "cue_length": self.cue_length,
            "delay_length": self.delay_length,
            "executed_action": executed,
            "expert_action": self.expert_action(),
        }


def pictures(raw: dict[str, Any]) -> np.ndarray:
    """Images (V, h, w, 3) of a wrapped observation of the suite, whose rgb is (1, h, w, V·3)."""
    rgb = raw["rgb"][0].cpu().numpy()
    return np.ascontiguousarray(rgb.reshape(*rgb.shape[:2], -1, 3).transpose(2, 0, 1, 3))


def proprioception(raw: dict[str, Any]) -> np.ndarray:
    """Proprio (Q,) float32 of a wrapped observation of the suite, as a copy."""
    return raw["proprio"][0].cpu().numpy().astype(np.float32, copy=True)


def resized(frames: np.ndarray, size: int) -> np.ndarray:
    """Images (V, size, size, 3); unchanged where they have that size."""
    if frames.shape[1:3] == (size, size):
        return frames
    return np.stack([Image.fromarray(f).resize((size, size), Image.Resampling.LANCZOS) for f in frames])
