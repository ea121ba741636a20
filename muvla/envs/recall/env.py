"""One recall episode as a gymnasium environment.

Legend: V cameras (2), h×w image, Q proprio dim (2), A action dim (2).
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from muvla.envs.actions import clipped
from muvla.envs.base import NO_CHOICE
from muvla.envs.colours import check_palette, get_colour
from muvla.envs.phases import Phase
from muvla.envs.recall import scene
from muvla.envs.recall.tasks import INSTRUCTIONS, RECALL_TASKS, step_limit
from muvla.utils.rng import numpy_rng

STEP = 0.25  # workspace units per full action
HOME = (0.0, -0.25)  # start of the effector
# The discs lie on an arc around the start that is narrower than a semicircle. An L1 policy without memory falls back on
# the median direction, which must lead to a disc: then its touch rate says nothing about recall.
RADIUS, ARC = 0.9, (np.pi * 5 / 6, np.pi / 6)
JITTER = 0.05  # uniform, added to the start
TOUCH = scene.DISC_RADIUS  # the effector's centre touches a disc within its radius
CAMERA_SIZE = 32  # pixels, square
# The attributes of an episode. A step replaces a changed value and never mutates it, so snapshots can share values.
_EPISODE = (
    "blank_length",
    "cue_length",
    "delay_length",
    "places",
    "colour_at",
    "cued_colour",
    "target",
    "effector",
    "t",
    "choice",
)


class RecallEnv(gymnasium.Env):
    """Observation: images (2, h, w, 3) uint8, proprio (2,) position of the effector. Action: (2,) in [-1, 1].

    The first disc that the effector touches is the choice, and ends the episode. `info` is a `StepInfo`.

    Args:
        task: a name in `RECALL_TASKS`.
        cue, delay, blank: ranges of phase lengths in steps; None is the task's default, and no blank.
        palette: names of the objects' colours; None is the task's palette.
        image_size: pixels; None is CAMERA_SIZE.
        shift: a change of appearance (`muvla.envs.recall.scene`).
        limit: most steps of an episode; None is the task's limit.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (gymnasium's own convention)

    def __init__(
        self,
        task: str,
        cue: tuple[int, int] | None = None,
        delay: tuple[int, int] | None = None,
        palette: tuple[str, ...] | None = None,
        image_size: int | None = None,
        blank: tuple[int, int] | None = None,
        shift: str | None = None,
        limit: int | None = None,
    ):
        self.task = RECALL_TASKS[task]
        self.cue, self.delay = cue or self.task.cue, delay or self.task.delay
        self.blank = blank or (0, 0)
        palette = tuple(palette or self.task.colours)
        check_palette(task, self.task.colours, palette)
        self.colours = [get_colour(name) for name in palette]
        self.image_size = image_size or CAMERA_SIZE
        self.instruction = INSTRUCTIONS[self.task.family]
        self.shift = shift
        self.step_limit = limit or step_limit(self.cue, self.delay, self.blank)
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
        rng = numpy_rng(key, "recall", self.task.name)
        n = self.task.objects
        # A separate key: an episode with a blank is the same episode, shown later.
        self.blank_length = int(numpy_rng(key, "recall blank").integers(self.blank[0], self.blank[1] + 1))
        self.cue_length = int(rng.integers(self.cue[0], self.cue[1] + 1))
        self.delay_length = int(rng.integers(self.delay[0], self.delay[1] + 1))
        angles = np.linspace(*ARC, n)
        self.places = np.asarray(HOME) + RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        if self.task.family == "RecallColor":  # the binding of colours to places is remembered
            self.colour_at = rng.permutation(n)
            self.cued_colour = int(rng.integers(n))
            self.target = int(np.flatnonzero(self.colour_at == self.cued_colour)[0])
        else:
            self.target = int(rng.integers(n))
        self.effector = np.asarray(HOME) + rng.uniform(-JITTER, JITTER, 2)
        self.t, self.choice = 0, NO_CHOICE
        return self._observation(), self._info(np.zeros(2))

    def step(self, action: np.ndarray):
        action = clipped(action, 2, np.float64)
        executed = action if self.phase is Phase.DECISION else np.zeros(2)
        self.effector = np.clip(self.effector + STEP * executed, -1, 1)
        if self.phase is Phase.DECISION:
            distances = np.linalg.norm(self.places - self.effector, axis=1)
            if distances.min() < TOUCH:
                self.choice = int(distances.argmin())
        self.t += 1
        touched = self.choice != NO_CHOICE
        success = self.choice == self.target
        return self._observation(), float(success), touched, self.t >= self.step_limit, self._info(executed)

    def snapshot(self) -> dict[str, Any]:
        """The state of the episode; later steps do not change it."""
        return {name: getattr(self, name) for name in _EPISODE if hasattr(self, name)}

    def restore(self, snapshot: dict[str, Any]) -> dict[str, np.ndarray]:
        """Continue from a snapshot exactly; returns the observation there."""
        vars(self).update(snapshot)
        return self._observation()

    @property
    def phase(self) -> Phase:
        since = self.t - self.blank_length
        if since < self.cue_length:
            return Phase.CUE if since >= 0 else Phase.BLANK
        return Phase.DELAY if since < self.cue_length + self.delay_length else Phase.DECISION

    def expert_action(self) -> np.ndarray:
        """Straight to the target, in no-op phases too, although the action is not executed there."""
        delta = (self.places[self.target] - self.effector) / STEP
        return (delta / max(1.0, np.abs(delta).max())).astype(np.float32)

    def _observation(self) -> dict[str, np.ndarray]:
        return {
            "images": scene.render(self._discs(), self.effector, self.image_size, self.shift),
            "proprio": self.effector.astype(np.float32),
        }

    def _discs(self) -> list[scene.Disc]:
        phase, colour_task = self.phase, self.task.family == "RecallColor"
        if phase in (Phase.BLANK, Phase.DELAY):
            return []
        if phase is Phase.CUE and colour_task:
            return [scene.Disc(0.0, 0.5, self.colours[self.cued_colour], 0.35)]
        colours = [scene.NEUTRAL] * self.task.objects
        if colour_task:
            colours = [self.colours[c] for c in self.colour_at]
        elif phase is Phase.CUE:
            colours[self.target] = self.colours[0]
        return [scene.Disc(x, y, c) for (x, y), c in zip(self.places.tolist(), colours, strict=True)]

    def _info(self, executed: np.ndarray) -> dict[str, Any]:
        return {
            "instruction": self.instruction,
            "phase": self.phase,
            "target": self.target,
            # The cue is a colour, and the target is a place.
            "identity": self.cued_colour if self.task.family == "RecallColor" else None,
            # Colour → place in this episode.
            "places_of": tuple(np.argsort(self.colour_at).tolist()) if self.task.family == "RecallColor" else None,
            "choice": self.choice,
            "success": self.choice == self.target,
            "blank_length": self.blank_length,
            "cue_length": self.cue_length,
            "delay_length": self.delay_length,
            "executed_action": executed.astype(np.float32),
            "expert_action": self.expert_action(),
        }
