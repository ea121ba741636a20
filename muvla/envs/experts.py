"""Scripted experts as pure functions of privileged positions; the environments put what they say into `info`.

They stand here, not under `muvla.data`, because an environment computes its expert's action at every step, and
`muvla.data` imports the environments. An expert keeps no state: which part of its task it is in it tells from where
things are, so that it also goes on from where another policy has brought them.

Legend: positions (3,) in metres, world frame, z up, the robot's base at x = −0.615 looking along +x; tcp, the tool
centre point; proprio (7,), tcp, roll, pitch, yaw in radians, width between the fingers in metres; an action (7,)
float32 in [-1, 1].
"""

from __future__ import annotations

import numpy as np

# ManiSkill's pd_ee_delta_pose: ±1 in the first three dimensions is ±0.1 m, along the axes of the robot's base. Of that
# the arm makes 4 cm in a step.
METRES_PER_UNIT = 0.1
RADIANS_PER_UNIT = 0.1
OPEN, CLOSED = 1.0, -1.0  # the gripper's number is a position; 0 is half open
# The point to stop at, above the centre of a cube of 4 cm edge. MIKASA counts a touch within 5 cm of the centre; coming
# to rest 3 cm above it leaves 2 cm for the arm's lag and keeps the fingers off the cube.
ABOVE = np.array([0.0, 0.0, 0.03])
# The same above the centre of a cup of 5.3 cm half height, where a touch counts within 8 cm.
ABOVE_CUP = np.array([0.0, 0.0, 0.068])
STILL = 0.01  # metres: closer than this to the point, the arm is told to hold still
# Of a cup of 5.5 cm radius: where to come down behind its centre, where the fingers touch it, at which height to push,
# and how near to the goal it is left (a success counts within 9.6 cm). Metres.
BEHIND, CONTACT, PUSH_HEIGHT, NEAR_GOAL = 0.11, 0.065, 0.05, 0.075
# Seconds that the hand's aim is ahead of a rolling ball: what the arm lags behind at a constant speed.
LEAD = 0.12
HELD = 0.046  # metres between the fingers, with a ball or a cube of 4 cm in them; wide open they are 8 cm apart
# How far the arm reaches over the table, metres from its base: with the hand upright, and tilted forward by 0.4 rad.
BASE = np.array([-0.615, 0.0])
REACH, TILTED_REACH, TILT = 0.80, 0.83, -0.4


def reach(tcp: np.ndarray, cube: np.ndarray, above: np.ndarray = ABOVE) -> np.ndarray:
    """The action (7,) float32 in [-1, 1] that takes the tool centre point straight to the point above a cube.

    tcp (3,) and cube (3,), its centre, in metres in the world frame. At full speed along the line, slower over the last
    10 cm; stopping at full speed instead overshoots the touch radius. Rotation and gripper are 0, and for the gripper 0
    is a position, half open: the one that the suite's own zero action commands in the no-op phases, so that an expert
    that commanded another would act differently there in a dimension that has nothing to do with the task.
    """
    action = np.zeros(7, dtype=np.float32)
    delta = np.asarray(cube, dtype=np.float64) + above - tcp
    if np.linalg.norm(delta) > STILL:
        scaled = delta / METRES_PER_UNIT
        action[:3] = scaled / max(1.0, np.abs(scaled).max())
    return action


def push(tcp: np.ndarray, cup: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Goes behind a cup, coming down where it cannot hit it, and pushes it forward (+x) until it is near enough to the
    goal; then holds still. The cup may have been thrown some way from where it was shown (see ShellGame)."""
    if np.linalg.norm((goal - cup)[:2]) < NEAR_GOAL:
        return _towards(tcp, tcp, CLOSED)
    if abs(tcp[1] - cup[1]) < 0.03 and tcp[2] < 0.09 and tcp[0] < cup[0] - 0.04:
        return _towards(tcp, [goal[0] - CONTACT, cup[1], PUSH_HEIGHT], CLOSED, speed=0.7)
    behind = np.array([cup[0] - BEHIND, cup[1], PUSH_HEIGHT])
    behind[2] += min(0.1, 1.5 * np.linalg.norm((behind - tcp)[:2]))
    return _towards(tcp, behind, CLOSED)


def intercept(proprio: np.ndarray, ball: np.ndarray, velocity: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Comes down over a rolling ball with the speed that it has, velocity (3,) in m/s, closes, and takes it to the
    goal. It catches the ball rather than deflect it: that does not depend on how the ball bounces."""
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
    """Grasps a cube of 4 cm edge and draws it over the table to a place, the hand tilted forward: upright, the arm does
    not reach the far targets."""
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
    """Straight to a point, at most at `speed` along any axis, slower over the last 10 cm.

    Never beyond the arm's reach: ManiSkill's controller does not move at all where it is asked for a pose that the arm
    cannot take, and so would stop 10 cm short of it.
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
