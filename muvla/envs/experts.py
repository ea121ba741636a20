"""Scripted experts for ManiSkill's Panda: pure functions of privileged positions.

An expert keeps no state. It derives the stage of its task from the positions, so it can continue from a state that
another policy reached.

Legend: positions are (3,) in metres, world frame, z up; the robot's base is at x = −0.615 and looks along +x. tcp is
the tool centre point. proprio (7,) is tcp, roll, pitch, yaw in radians, and the width between the fingers in metres. An
action is (7,) float32 in [-1, 1].
"""

from __future__ import annotations

import numpy as np

# ManiSkill's pd_ee_delta_pose: ±1 in the first three dimensions is ±0.1 m along the axes of the robot's base. The arm
# moves 4 cm of the 10 cm in a step.
METRES_PER_UNIT = 0.1
RADIANS_PER_UNIT = 0.1
OPEN, CLOSED = 1.0, -1.0  # the gripper's number is a position, and 0 is half open
# The point to stop at, above the centre of a cube of 4 cm edge. MIKASA counts a touch within 5 cm of the centre. 3 cm
# above the centre leave 2 cm for the arm's lag, and keep the fingers off the cube.
ABOVE = np.array([0.0, 0.0, 0.03])
# The same point for a cup of 5.3 cm half height, where a touch counts within 8 cm of the centre.
ABOVE_CUP = np.array([0.0, 0.0, 0.068])
STILL = 0.01  # metres; closer to the point, the arm holds still
# For a cup of 5.5 cm radius, in metres: the distance behind the centre at which the hand comes down, the distance at
# which the fingers touch the cup, the height of the push, and the distance to the goal at which the push ends (a
# success counts within 9.6 cm).
BEHIND, CONTACT, PUSH_HEIGHT, NEAR_GOAL = 0.11, 0.065, 0.05, 0.075
# The hand aims this many seconds ahead of a rolling ball: the arm's lag at constant speed.
LEAD = 0.12
HELD = 0.046  # metres between the fingers around a ball or a cube of 4 cm; the open width is 8 cm
# Metres from the base that the arm reaches over the table: with an upright hand, and with a hand tilted by 0.4 rad.
BASE = np.array([-0.615, 0.0])
REACH, TILTED_REACH, TILT = 0.80, 0.83, -0.4


def reach(tcp: np.ndarray, cube: np.ndarray, above: np.ndarray = ABOVE) -> np.ndarray:
    """Move the tool centre point straight to the point above the cube's centre.

    The hand moves at full speed along the line, and slower over the last 10 cm: stopping at full speed overshoots the
    touch radius. Rotation and gripper are 0. The gripper's 0 is the half-open position that the suite commands in no-op
    phases. Another position would make phases differ in a dimension that the task does not need.
    """
    action = np.zeros(7, dtype=np.float32)
    delta = np.asarray(cube, dtype=np.float64) + above - tcp
    if np.linalg.norm(delta) > STILL:
        scaled = delta / METRES_PER_UNIT
        action[:3] = scaled / max(1.0, np.abs(scaled).max())
    return action


def push(tcp: np.ndarray, cup: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Go behind the cup, come down there, and push the cup forward (+x) until it is near the goal; then hold still.

    The cup may stand away from the place where it was shown (see ShellGame).
    """
    if np.linalg.norm((goal - cup)[:2]) < NEAR_GOAL:
        return _towards(tcp, tcp, CLOSED)
    if abs(tcp[1] - cup[1]) < 0.03 and tcp[2] < 0.09 and tcp[0] < cup[0] - 0.04:
        return _towards(tcp, [goal[0] - CONTACT, cup[1], PUSH_HEIGHT], CLOSED, speed=0.7)
    behind = np.array([cup[0] - BEHIND, cup[1], PUSH_HEIGHT])
    behind[2] += min(0.1, 1.5 * np.linalg.norm((behind - tcp)[:2]))
    return _towards(tcp, behind, CLOSED)


def intercept(proprio: np.ndarray, ball: np.ndarray, velocity: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Come down over the rolling ball at the ball's speed, close the fingers, and take the ball to the goal.

    The expert catches the ball and does not deflect it, so success does not depend on how the ball bounces.

    Args:
        proprio: (7,), see the module.
        ball: (3,) position in metres.
        velocity: (3,) of the ball in m/s.
        goal: (3,) position in metres.
    """
    tcp, width = proprio[:3], proprio[6]
    offset = ball - tcp
    apart = np.linalg.norm(offset[:2])
    ahead = ball + LEAD * velocity
    ahead[2] = max(ball[2], 0.02)
    if apart < 0.025 and offset[2] > -0.02:
        if width < HELD:
            return _towards(tcp, [*goal[:2], 0.03], CLOSED)
        return _towards(tcp, ahead, CLOSED)
    ahead[2] += np.clip(3 * (apart - 0.015), 0, 0.08)
    return _towards(tcp, ahead, OPEN)


def carry(proprio: np.ndarray, cube: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Grasp a cube of 4 cm edge and draw it over the table to the place `to`.

    The hand is tilted forward: with an upright hand the arm does not reach the far targets.
    """
    tcp, width = proprio[:3], proprio[6]
    offset = cube - tcp
    if np.linalg.norm(offset[:2]) < 0.015 and abs(offset[2]) < 0.015:
        action = _towards(tcp, tcp if width > HELD else [*to[:2], cube[2] + 0.002], CLOSED, reach=TILTED_REACH)
    else:
        over = np.linalg.norm(offset[:2]) < 0.02
        action = _towards(tcp, cube if over else [*cube[:2], cube[2] + 0.06], OPEN)
    action[4] = np.clip((proprio[4] - TILT) / RADIANS_PER_UNIT, -1, 1)  # pitch falls as this number is positive
    return action


def _towards(
    tcp: np.ndarray, point: np.ndarray | list[float], gripper: float, speed: float = 1.0, reach: float = REACH
) -> np.ndarray:
    """Move straight to a point, at most at `speed` along any axis, and slower over the last 10 cm.

    The target is limited to the arm's reach. Asked for a pose that the arm cannot take, ManiSkill's controller does not
    move at all, and the hand would stop 10 cm short.
    """
    delta = np.asarray(point, dtype=np.float64) - tcp
    delta *= min(1.0, speed * METRES_PER_UNIT / max(np.abs(delta).max(), 1e-9))
    out = (tcp + delta)[:2] - BASE
    if (radius := np.linalg.norm(out)) > reach:
        delta[:2] = BASE + out * reach / radius - tcp[:2]
    action = np.zeros(7, dtype=np.float32)
    action[:3] = np.clip(delta / METRES_PER_UNIT, -1, 1)
    action[6] = gripper
    return action
