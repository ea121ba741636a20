"""A stand-in for LIBERO's simulator."""

from __future__ import annotations

import numpy as np

from muvla.envs.libero.simulator import Simulator


class Fake(Simulator):
    """Writes down what it is asked; the hand is at x = number of steps. The pictures are bright in their first row's
    first pixel, which the real ones show at the bottom right."""

    succeeds_at = 1_000_000  # steps, the settling included
    hopeless = "nowhere"
    render_backend = "none"
    renderer = "Fake GPU"

    def __init__(self, task, size):
        self.task, self.size, self.starts, self.actions, self.closed = task, size, [], [], False

    def start(self, number):
        self.starts.append(number)
        self.actions.append([])

    def step(self, action):
        self.actions[-1].append(action)
        picture = np.full((self.size, self.size, 3), 20, np.uint8)
        picture[0, 0] = 250
        raw = {
            "agentview_image": picture,
            "robot0_eye_in_hand_image": picture // 2,
            "joint": np.zeros(7),
            "robot0_eef_pos": np.array([len(self.actions[-1]), 2.0, 3.0]),
            "robot0_eef_quat": np.array([1.0, 0, 0, 0]),
            "robot0_gripper_qpos": np.array([0.04, -0.03]),
        }
        return raw, len(self.actions[-1]) >= self.succeeds_at and self.task.suite != self.hopeless

    def close(self):
        self.closed = True
