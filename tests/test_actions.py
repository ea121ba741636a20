"""An action that is none stops the episode in every environment, before its simulator sees it."""

from types import SimpleNamespace

import numpy as np
import pytest

from helpers.errors import refused
from muvla.envs.actions import clipped
from muvla.envs.libero.env import LiberoEnv
from muvla.envs.mikasa.env import MikasaEnv
from muvla.envs.recall.env import RecallEnv


def mikasa():
    env = object.__new__(MikasaEnv)  # without its simulator, which must not be asked
    env._env = SimpleNamespace(step=None)
    return env


def libero():
    env = object.__new__(LiberoEnv)
    env._simulator = SimpleNamespace()
    return env


def recall():
    env = RecallEnv("RecallPosition3-v0")
    env.reset(seed=0)
    return env


@pytest.mark.parametrize("action", ["NaN", "infinity", "None", "too long"])
@pytest.mark.parametrize(("make", "numbers"), [(mikasa, 7), (libero, 7), (recall, 2)])
def test_what_is_no_action_is_one_error(make, numbers, action):
    given = {
        "NaN": np.append(np.zeros(numbers - 1), np.nan),
        "infinity": np.full(numbers, np.inf),
        "None": None,
        "too long": np.zeros(numbers + 1),
    }[action]
    with refused("action"):
        make().step(given)


def test_actions_are_clipped_in_the_precision_of_their_environment():
    for dtype in (np.float32, np.float64):
        got = clipped([2, -0.1], 2, dtype)
        assert got.dtype == dtype and got.tolist() == [1.0, dtype(-0.1)]
