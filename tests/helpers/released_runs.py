"""Evaluation of a tiny release on a recall task that has the shapes of a robot."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from muvla.cli.main import main
from muvla.config import TaskConfig
from muvla.envs.recall.env import RecallEnv
from muvla.evaluation.protocol import Protocol

PROTOCOL = Protocol("released", 1, TaskConfig("RecallPosition3-v0"), episodes=4, slots=2)


class Variant(RecallEnv):
    """The recall task with the numbers of MIKASA's robot: 128-pixel cameras, 7 of proprio, 7 of action."""

    def __init__(self, *_):
        super().__init__(PROTOCOL.task.name, image_size=128)
        self.observation_space = spaces.Dict(
            self.observation_space.spaces | {"proprio": spaces.Box(-1, 1, (7,), np.float32)}
        )
        self.action_space = spaces.Box(-1, 1, (7,), np.float32)

    def reset(self, **kwargs):
        observation, info = super().reset(**kwargs)
        return self._padded(observation), info

    def step(self, action):
        observation, *rest = super().step(action[:2])
        return self._padded(observation), *rest

    @staticmethod
    def _padded(observation):
        return observation | {"proprio": np.pad(observation["proprio"], (0, 5))}


def run(root, verb, directory, *more):
    return main(
        [
            verb,
            str(directory),
            *more,
            "--size",
            "fixture",
            "--protocol",
            PROTOCOL.id,
            "--runs",
            str(root / "runs"),
            "--data",
            str(root / "data"),
        ]
    )
