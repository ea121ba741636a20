"""Environments for tests of the workers; their processes import this file and no model."""

from __future__ import annotations

import ctypes
import os
import time

import gymnasium
import numpy as np

from muvla.errors import MuvlaError


class CountingEnv(gymnasium.Env):
    """Adds up actions; what it does on top is in the action's first number."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-10, 10, (2,), np.float64)
    instruction = "count"
    RAISE, REFUSE, DIE, HANG, NAP, HANG_IN_C = 1.0, 2.0, 3.0, 4.0, 5.0, 6.0

    def __init__(self, start: float = 0.0):
        self.start = start

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.total = np.array([self.start, self.np_random.random()])
        return self.total.copy(), {"seed": seed, "options": options}

    def step(self, action):
        if action[0] == self.RAISE:
            raise KeyError("no such cube")
        if action[0] == self.REFUSE:
            raise MuvlaError("action", got=2.0, expected="another", remedy="send another")
        if action[0] == self.DIE:
            os._exit(7)
        if action[0] == self.HANG:
            time.sleep(60)
        if action[0] == self.HANG_IN_C:
            ctypes.PyDLL(None).sleep(60)  # and lets no other thread of the process run
        began = time.monotonic()  # one clock for all processes
        if action[0] == self.NAP:
            time.sleep(0.5)
        self.total = self.total + action
        return (
            self.total.copy(),
            float(self.total[0]),
            False,
            bool(self.total[1] > 2),
            {
                "executed_action": action,
                "span": (began, time.monotonic()),
            },
        )


class PictureEnv(gymnasium.Env):
    """Images that count the steps; at the fourth step they have another shape than was said."""

    observation_space = gymnasium.spaces.Dict(
        images=gymnasium.spaces.Box(0, 255, (2, 8, 8, 3), np.uint8), proprio=gymnasium.spaces.Box(-1, 1, (2,))
    )
    action_space = gymnasium.spaces.Box(-1, 1, (2,))
    provenance = {"wrappers": ["None"]}  # noqa: RUF012

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self.observation(), {}

    def step(self, action):
        self.t += 1
        return self.observation(), 0.0, False, False, {"pid": os.getpid()}

    def observation(self):
        shape = self.observation_space["images"].shape if self.t < 4 else (1, 8, 8, 3)
        return {"images": np.full(shape, self.t, np.uint8), "proprio": np.full(2, self.t, np.float32)}
