"""The scripted experts as functions of positions; whether they succeed is measured in benchmarks/experts.md."""

import numpy as np
import pytest

from muvla.envs import experts
from muvla.envs.experts import BASE, CLOSED, OPEN, carry, intercept, push

CUP, GOAL = np.array([0.0, 0.1, 0.053]), np.array([0.1, 0.1, 0.05])


def proprio(*tcp, pitch=0.0, width=0.08):
    return np.array([*tcp, 0.0, pitch, 0.0, width])


def test_every_action_is_one():
    generator = np.random.default_rng(0)
    for _ in range(200):
        a, b, c = generator.uniform([-0.3, -0.5, 0], [0.2, 0.5, 0.4], (3, 3))
        state = proprio(*a, pitch=generator.uniform(-0.6, 0.1), width=generator.uniform(0, 0.08))
        velocity = np.array([0.02, 0.5, 0])
        for action in (push(a, b, c), intercept(state, b, velocity, c), carry(state, b, c)):
            assert action.shape == (7,) and action.dtype == np.float32 and np.abs(action).max() <= 1


def test_push_goes_behind_from_above_then_forward_then_holds_still():
    above = push(np.array([-0.05, 0.1, 0.2]), CUP, GOAL)
    assert above[0] < 0 and above[2] < 0
    beside = push(np.array([-0.11, -0.1, 0.06]), CUP, GOAL)
    assert beside[1] == 1 and beside[2] > 0.4  # not through another cup, but over it
    behind = push(np.array([-0.11, 0.1, 0.05]), CUP, GOAL)
    assert behind[0] == pytest.approx(0.7) and abs(behind[1]) < 0.01 and behind[6] == CLOSED
    np.testing.assert_array_equal(push(np.array([-0.02, 0.1, 0.05]), CUP + [0.06, 0, 0], GOAL)[:6], 0)


def test_intercept_aims_ahead_comes_down_closes_and_takes_it_to_the_goal():
    ball, velocity, goal = np.array([-0.2, -0.4, 0.02]), np.array([0.0, 0.5, 0.0]), np.array([0.0, 0.1, 0.0])
    far = intercept(proprio(-0.1, 0.0, 0.3), ball, velocity, goal)
    assert far[0] < 0 and far[1] < 0 and far[6] == OPEN
    over = intercept(proprio(-0.2, -0.37, 0.1), ball, velocity, goal)
    assert over[1] > 0 and over[6] == OPEN  # behind the aim, though before the ball
    around = intercept(proprio(-0.2, -0.4, 0.025), ball, velocity, goal)
    assert around[1] == pytest.approx(0.6) and around[6] == CLOSED
    holding = intercept(proprio(-0.2, -0.4, 0.025, width=0.04), ball, velocity, goal)
    assert holding[0] > 0.3 and holding[1] > 0.9 and holding[6] == CLOSED


def test_carry_comes_from_above_closes_tilts_and_draws():
    cube, to = np.array([0.0, 0.1, 0.02]), np.array([0.2, 0.0, 0.0])
    beside = carry(proprio(0.1, 0.1, 0.02), cube, to)
    assert beside[0] < -0.5 and beside[2] > 0.5 and beside[6] == OPEN
    assert beside[4] == 1 and carry(proprio(0.1, 0.1, 0.02, pitch=-0.4), cube, to)[4] == 0
    around = carry(proprio(0.0, 0.1, 0.025), cube, to)
    np.testing.assert_array_equal(around[:3], 0)
    assert around[6] == CLOSED
    held = carry(proprio(0.0, 0.1, 0.02, width=0.037), cube, to)
    assert held[0] == pytest.approx(1) and held[1] < -0.3 and held[6] == CLOSED


def test_no_expert_asks_for_a_place_beyond_the_arms_reach():
    """Where the controller finds no such pose it does not move at all."""
    tcp = np.array([0.15, 0.0, 0.03])
    held = carry(proprio(*tcp, width=0.037), tcp, np.array([0.4, 0.2, 0.0]))
    asked = tcp[:2] + held[:2] * experts.METRES_PER_UNIT
    assert np.linalg.norm(asked - BASE) == pytest.approx(experts.TILTED_REACH, abs=1e-6)
    ball = intercept(proprio(0.1, -0.3, 0.2), np.array([0.1, -0.9, 0.02]), np.zeros(3), np.zeros(3))
    assert np.linalg.norm(np.array([0.1, -0.3]) + ball[:2] * 0.1 - BASE) == pytest.approx(experts.REACH, abs=1e-6)
