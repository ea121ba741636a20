"""An environment that computes nothing. A worker process reads this module alone, and imports no torch for it."""

from __future__ import annotations

import gymnasium
import numpy as np
from gymnasium import spaces


class Echo(gymnasium.Env):
    """An environment that computes nothing and returns images of an environment's size."""

    def __init__(self, cameras: int, pixels: int, proprio: int):
        images = spaces.Box(0, 255, (cameras, pixels, pixels, 3), np.uint8)
        self.observation_space = spaces.Dict(images=images, proprio=spaces.Box(-1, 1, (proprio,)))
        self.observation = {"images": np.zeros(images.shape, np.uint8), "proprio": np.zeros(proprio, np.float32)}
        self.info = {"instruction": "Touch the cube.", "phase": 3, "target": 0, "choice": -1, "success": False}

    def reset(self, *, seed=None, options=None):
        return self.observation, self.info

    def step(self, action):
        return self.observation, 0.0, False, False, self.info
