"""One adapter for every task of the suite; what differs between families is in `muvla.envs.mikasa.families`.
ManiSkill's own tasks go through it too (`muvla.envs.maniskill`).

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

    `info` is RecallEnv's. An object is named by its number in the suite (a cube by its colour: 0 red, 1 lime, 2 blue,
    ...; a cup by its place: 0 left, 1 centre, 2 right): `target` is the cued one, `choice` the first one touched in the
    decision phase (the nearest with the tool centre point within the family's `touch` of its centre), -1 before. Where
    nothing is chosen `target` is None and `choice` stays -1.
    `executed_action` is what reached the simulator: in the no-op phases the suite's wrapper replaces all seven numbers
    by 0. For the arm that is "stay"; the gripper's number is a position, and 0 moves it from open to half open. Tasks
    that are `free` have no such wrapper: their cue and delay say what is shown, and every action is executed.
    `expert_action` is the expert's in every phase, None for a task that has none. While the objects are hidden it goes
    for the place where the target will appear, which the simulator has drawn at reset and no frame shows before the
    decision.
    `instruction` is the sentence of the published data; Rotate's names the angle of its episode.

    Most families do not end an episode at success: `terminated` stays False, `truncated` comes at the step limit. The
    ShellGame, BlinkCountButtonPress and TimedTransfer tasks end there, the last two also where they are failed. What
    counts as success is the suite's.

    lengths: `cue` and `delay`, ranges of steps, where the family draws them (`Family.settable`). The step limit grows
    with the longest of them, so that as many steps are left for the decision as in the published task; `limit` sets it.
    palette, shift: see `muvla.envs.mikasa.appearance`.

    Places and phase lengths are drawn by torch on the physics device, and CUDA draws others from the same seed: so the
    physics device is declared (`TaskConfig.physics`) and never chosen by what is there. `render_backend="auto"` takes
    the GPU if one is there. What was taken is in the attributes `sim_backend` and `render_backend`; assets that are
    stand-ins are named in `stand_in_assets`.

    `frames=False` looks through no camera: pictures are black, and a step costs a fraction, so that experts can be
    measured. It changes nothing else of an episode on CPU physics, and is refused on a GPU's. A TaskConfig cannot ask
    for it, and provenance says it.

    Raises MuvlaError: unknown task or backend, simulator not installed, no renderer, no asset.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (gymnasium's own convention)
    known: ClassVar[Mapping[str, Any]] = MIKASA_TASKS
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
        if task not in self.known:
            raise unknown_name("task.name", task, self.known, "muvla ls tasks")
        self.task = self.known[task]
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
        """The episode is a function of its seed, 0 to 2³²−1, alone; without one, gymnasium's generator draws it."""
        super().reset(seed=seed)
        seed = int(self.np_random.integers(2**31)) if seed is None else int(seed)
        # The scene is built anew: one that has been played in keeps what its contacts left behind, and the next episode
        # differs from the seventh digit on, which a policy may make a different choice of.
        raw, info = self._env.reset(seed=seed, options={"reconfigure": True, **(self._family.options(seed) or {})})
        self.cue_length, self.delay_length = self._family.lengths()
        self.target = self._family.target()
        self.choice = NO_CHOICE
        self._take(raw, info)
        return self._observation(), self._info(np.zeros(ACTION_DIM, dtype=np.float32))

    def step(self, action: np.ndarray):
        raw, reward, terminated, truncated, info = self._env.step(clipped(action, ACTION_DIM))
        # Part of the physics for tasks that hide objects: on a GPU it is render() that commits their poses, and without
        # it they fall (μVLA spec 6.1). On a CPU it changes nothing but the time, a third of a step's.
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
        """What the episodes are made with: wrappers, outermost first, what could draw the pictures here, what is
        altered of the suite's task, and assets that are stand-ins."""
        import sapien

        env, wrappers = self._env, []
        while isinstance(env, gymnasium.Wrapper):
            wrappers.append(type(env).__name__)
            env = env.env
        summary = sapien.render.get_device_summary().splitlines()
        told = {"wrappers": wrappers, "renderers": [line[5:] for line in summary if line.startswith("GPU: ")]}
        more = {"altered": [*self._family.altered(), *self._altered], "stand_in_assets": list(self.stand_in_assets)}
        more["pictures"] = "" if self._frames_wanted else "none taken"
        return told | {name: those for name, those in more.items() if those}

    @property
    def phase(self) -> Phase:
        """Of the current observation, and so of the action that answers it."""
        if self._elapsed < self.cue_length:
            return Phase.CUE
        return Phase.DELAY if self._elapsed < self.cue_length + self.delay_length else Phase.DECISION

    def places(self) -> np.ndarray:
        """Centres of the objects (N, 3), metres: where they are, or, while hidden, where they will appear."""
        return self._family.places(self.phase in NO_OP_PHASES)

    def expert_action(self) -> np.ndarray | None:
        return self._family.expert(self._proprio, self.phase in NO_OP_PHASES) if self.task.expert else None

    def _take(self, raw: dict[str, Any], info: dict[str, Any]) -> None:
        """Copies out of the simulator's buffers: what is observed, and what `info` is made of."""
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
            "identity": None,  # the target is named by what it is
            "places_of": None,
            "blank_length": 0,
            "cue_length": self.cue_length,
            "delay_length": self.delay_length,
            "executed_action": executed,
            "expert_action": self.expert_action(),
        }


def pictures(raw: dict[str, Any]) -> np.ndarray:
    """(V, h, w, 3) of a wrapped observation of the suite, whose rgb is (1, h, w, V·3)."""
    rgb = raw["rgb"][0].cpu().numpy()
    return np.ascontiguousarray(rgb.reshape(*rgb.shape[:2], -1, 3).transpose(2, 0, 1, 3))


def proprioception(raw: dict[str, Any]) -> np.ndarray:
    """(Q,) float32, a copy, of a wrapped observation of the suite."""
    return raw["proprio"][0].cpu().numpy().astype(np.float32, copy=True)


def resized(frames: np.ndarray, size: int) -> np.ndarray:
    """(V, size, size, 3); as they are if they have that size."""
    if frames.shape[1:3] == (size, size):
        return frames
    return np.stack([Image.fromarray(f).resize((size, size), Image.Resampling.LANCZOS) for f in frames])
