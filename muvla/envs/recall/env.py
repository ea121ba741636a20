"""One recall episode as a gymnasium environment.

Legend: V cameras (2), h×w image, Q proprio dim (2), A action dim (2).
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from muvla.config import TaskConfig
from muvla.envs.actions import clipped
from muvla.envs.base import NO_CHOICE
from muvla.envs.phases import Phase
from muvla.envs.recall import scene
from muvla.envs.recall.base import HOME, Drawn, KeyedDraws, Lengths, disc_places, draw_between
from muvla.envs.recall.tasks import RECALL_TASKS, step_limit
from muvla.utils.rng import numpy_rng

STEP = 0.25  # workspace units per full action
JITTER = 0.05  # uniform, added to the start
TOUCH = scene.DISC_RADIUS  # the effector's centre touches a disc within its radius
CAMERA_SIZE = 32  # pixels, square
# The attributes of an episode. A step replaces a changed value and never mutates it, so snapshots can share values.
_EPISODE = ("drawn", "start", "effector", "t", "touches")


class RecallEnv(gymnasium.Env):
    """Observation: images (2, h, w, 3) uint8, proprio (2,) position of the effector. Action: (2,) in [-1, 1].

    The episode ends at the first touch of a wrong disc, or at the touch of the last right disc. After another right
    touch the disc is gone and the effector is back at its start. `info` is a `StepInfo`.

    Args:
        task: a name in `RECALL_TASKS`.
        image_size: pixels; None is CAMERA_SIZE.
        changes: further fields of a TaskConfig.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (gymnasium's own convention)

    def __init__(self, task: str, image_size: int | None = None, **changes: Any):
        config = TaskConfig(task, **changes)
        self.task = RECALL_TASKS[task]
        self.setup = self.task.setup(config)
        self.places = disc_places(self.setup.objects)  # (N, 2)
        self.image_size = image_size or CAMERA_SIZE
        self.shift = config.shift
        self.step_limit = config.step_limit or step_limit(self.setup)
        self.observation_space = spaces.Dict(
            {
                "images": spaces.Box(0, 255, (2, self.image_size, self.image_size, 3), np.uint8),
                "proprio": spaces.Box(-1, 1, (2,), np.float32),
            }
        )
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        # Keyed draws instead of gymnasium's generator: the episode is a function of its seed alone.
        key = seed if seed is not None else int(self.np_random.integers(2**31))
        draws = KeyedDraws(key, self.task.name)
        # A separate key: an episode with a blank is the same episode, shown later.
        blank = int(numpy_rng(key, "recall blank").integers(self.setup.blank[0], self.setup.blank[1] + 1))
        lengths = Lengths(blank, draw_between(draws, self.setup.cue), draw_between(draws, self.setup.delay))
        self.drawn: Drawn = self.task.draw(draws, self.setup, lengths)
        self.start = np.asarray(HOME) + draws.rng.uniform(-JITTER, JITTER, 2)
        self.effector = self.start
        self.t, self.touches = 0, ()
        return self._observation(), self._info(np.zeros(2))

    def step(self, action: np.ndarray):
        action = clipped(action, 2, np.float64)
        is_decision = self.phase is Phase.DECISION
        executed = action if is_decision else np.zeros(2)
        self.effector = np.clip(self.effector + STEP * executed, -1, 1)
        if is_decision:
            self._touch()
        self.t += 1
        success = self._succeeded
        over = success or self._right < len(self.touches)
        return self._observation(), float(success), over, self.t >= self.step_limit, self._info(executed)

    def snapshot(self) -> dict[str, Any]:
        """The state of the episode; later steps do not change it."""
        return {name: getattr(self, name) for name in _EPISODE}

    def restore(self, snapshot: dict[str, Any]) -> dict[str, np.ndarray]:
        """Continue from a snapshot exactly; returns the observation there."""
        vars(self).update(snapshot)
        return self._observation()

    @property
    def phase(self) -> Phase:
        return self.drawn.lengths.at(self.t)[0]

    @property
    def target(self) -> int:
        """Number of the disc that the expert touches first."""
        return self.drawn.answer[0]

    def expert_action(self) -> np.ndarray:
        """Straight to the next disc, in no-op phases too, although the action is not executed there."""
        left = [disc for disc in self.drawn.answer if disc not in self.touches]
        following = left[0] if left else self.drawn.answer[-1]
        delta = (self.places[following] - self.effector) / STEP
        return (delta / max(1.0, np.abs(delta).max())).astype(np.float32)

    def _touch(self) -> None:
        """Note the nearest disc within reach. A right touch that is not the last sends the effector back."""
        distances = np.linalg.norm(self.places - self.effector, axis=1)
        distances[list(self.touches)] = np.inf
        if distances.min() < TOUCH:
            self.touches = (*self.touches, int(distances.argmin()))
            if self._right == len(self.touches) < len(self.drawn.answer):
                self.effector = self.start

    @property
    def _right(self) -> int:
        """Number of right touches before the first wrong touch."""
        answer = self.drawn.answer
        for i, disc in enumerate(self.touches):
            if disc != answer[i] if self.task.ordered else disc not in answer:
                return i
        return len(self.touches)

    @property
    def _succeeded(self) -> bool:
        return self._right == len(self.drawn.answer)

    def _observation(self) -> dict[str, np.ndarray]:
        return {
            "images": scene.render(self._discs(), self.effector, self.image_size, self.shift),
            "proprio": self.effector.astype(np.float32),
        }

    def _discs(self) -> list[scene.Disc]:
        gone = self.touches if len(self.drawn.answer) > 1 else ()
        return self.task.shows(self.drawn, self.setup, self.t, gone)

    def _info(self, executed: np.ndarray) -> dict[str, Any]:
        lengths, several = self.drawn.lengths, len(self.drawn.answer) > 1
        return {
            "instruction": self.task.instruction(self.drawn),
            "phase": self.phase,
            "target": self.target,
            "identity": None,
            "places_of": None,
            "choice": self.touches[0] if self.touches else NO_CHOICE,
            "success": self._succeeded,
            "blank_length": lengths.blank,
            "cue_length": lengths.cue,
            "delay_length": lengths.delay,
            "executed_action": executed.astype(np.float32),
            "expert_action": self.expert_action(),
            **self.task.facts(self.drawn),
            **({"targets": self.drawn.answer, "choices": self.touches, "right": self._right} if several else {}),
        }
