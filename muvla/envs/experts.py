"""Scripted experts as pure functions of privileged positions; the environments put what they say into `info`.

They stand here, not under `muvla.data`, because an environment computes its expert's action at every step, and
`muvla.data` imports the environments.
"""

from __future__ import annotations

import numpy as np

# ManiSkill's pd_ee_delta_pose: ±1 in the first three dimensions is ±0.1 m, along the axes of the robot's base.
METRES_PER_UNIT = 0.1
# The point to stop at, above the centre of a cube of 4 cm edge. MIKASA counts a touch within 5 cm of the centre; coming
# to rest 3 cm above it leaves 2 cm for the arm's lag and keeps the fingers off the cube.
ABOVE = np.array([0.0, 0.0, 0.03])
STILL = 0.01  # metres: closer than this to the point, the arm is told to hold still


def reach(tcp: np.ndarray, cube: np.ndarray) -> np.ndarray:
    """The action (7,) float32 in [-1, 1] that takes the tool centre point straight to the point above a cube.

    tcp (3,) and cube (3,), its centre, in metres in the world frame. At full speed along the line, slower over the last
    10 cm; stopping at full speed instead overshoots the touch radius. Rotation and gripper are 0, and for the gripper 0
    is a position, half open: the one that the suite's own zero action commands in the no-op phases, so that an expert
    that commanded another would act differently there in a dimension that has nothing to do with the task.
    """
    action = np.zeros(7, dtype=np.float32)
    delta = np.asarray(cube, dtype=np.float64) + ABOVE - tcp
    if np.linalg.norm(delta) > STILL:
        scaled = delta / METRES_PER_UNIT
        action[:3] = scaled / max(1.0, np.abs(scaled).max())
    return action
