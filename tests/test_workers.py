"""An environment in its own process behaves as in this one, and its death costs one episode."""

import os
import signal
import time
from functools import partial

import gymnasium
import numpy as np
import pytest

from muvla.envs.workers import Limits, WorkerEnv, WorkerError
from muvla.errors import MuvlaError


class CountingEnv(gymnasium.Env):
    """Adds up actions; what it does on top is in the action's first number."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-10, 10, (2,), np.float64)
    instruction = "count"
    RAISE, REFUSE, DIE, HANG, NAP = 1.0, 2.0, 3.0, 4.0, 5.0

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


def refuse() -> gymnasium.Env:
    raise MuvlaError("renderer", got="none", expected="one", remedy="install one")


def fail() -> gymnasium.Env:
    raise ZeroDivisionError("no scene")


@pytest.fixture
def worker():
    env = WorkerEnv(partial(CountingEnv, 0.25))
    yield env
    env.close()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_steps_like_the_environment_in_this_process(worker):
    here = CountingEnv(0.25)
    for seed in (3, 4, 3):
        ours, theirs = here.reset(seed=seed, options={"a": 1}), worker.reset(seed=seed, options={"a": 1})
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[1] == theirs[1]
        for value in (0.5, -0.25, 1.5):
            ours, theirs = here.step(np.array([0.1, value])), worker.step(np.array([0.1, value]))
            np.testing.assert_array_equal(ours[0], theirs[0])
            assert ours[1:4] == theirs[1:4]
            np.testing.assert_array_equal(ours[4]["executed_action"], theirs[4]["executed_action"])
    assert worker.observation_space == here.observation_space
    assert worker.action_space == here.action_space
    assert worker.attribute("instruction") == "count"


def test_an_exception_in_the_environment_comes_back_and_the_process_lives_on(worker):
    worker.reset(seed=0)
    pid = worker.pid
    with pytest.raises(WorkerError, match=r"^KeyError: 'no such cube' \(step, line \d+\)") as caught:
        worker.step(np.array([CountingEnv.RAISE, 0.0]))
    assert "\n" not in str(caught.value)
    assert "Traceback" in caught.value.__notes__[0]
    with pytest.raises(MuvlaError, match="send another") as refused:
        worker.step(np.array([CountingEnv.REFUSE, 0.0]))
    assert refused.value.field == "action"
    with pytest.raises(WorkerError, match="AttributeError"):
        worker.attribute("nothing")
    worker.reset(seed=0)
    assert worker.pid == pid


def test_a_process_that_dies_costs_one_episode(worker):
    first, _ = worker.reset(seed=5)
    worker.start_step(np.array([CountingEnv.DIE, 0.0]))
    with pytest.raises(WorkerError, match=r"died \(exit code 7\)"):
        worker.finish()
    assert worker.pid is None
    with pytest.raises(WorkerError, match="reset starts a fresh one"):
        worker.start_step(np.zeros(2))
    again, _ = worker.reset(seed=5)
    np.testing.assert_array_equal(first, again)
    os.kill(worker.pid, signal.SIGKILL)
    worker.start_step(np.zeros(2))  # as the rollout does: nothing is known of the death yet
    with pytest.raises(WorkerError, match="exit code -9, SIGKILL"):
        worker.finish()


def test_a_process_that_hangs_is_ended():
    env = WorkerEnv(CountingEnv, Limits(step=0.2))
    env.reset(seed=0)
    pid = env.pid
    env.start_step(np.array([CountingEnv.HANG, 0.0]))
    with pytest.raises(WorkerError, match=r"no answer to step in 0\.2 s"):
        env.finish()
    assert not is_running(pid)
    env.close()


def test_workers_step_at_the_same_time_and_close_leaves_no_process():
    envs = [WorkerEnv(CountingEnv) for _ in range(2)]
    for env in envs:
        env.reset(seed=0)
    pids = [env.pid for env in envs]
    for env in envs:
        env.start_step(np.array([CountingEnv.NAP, 0.0]))
    with pytest.raises(RuntimeError, match="finish first"):
        envs[0].reset(seed=0)
    (first_began, first_ended), (second_began, second_ended) = [env.finish()[4]["span"] for env in envs]
    assert max(first_began, second_began) < min(first_ended, second_ended)
    with pytest.raises(RuntimeError, match="without start_step"):
        envs[0].finish()
    for env in envs:
        env.close()
        env.close()
    assert not any(is_running(pid) for pid in pids)


def test_an_environment_that_cannot_be_made_says_why():
    refused, failed = WorkerEnv(refuse), WorkerEnv(fail)
    for _ in range(2):  # every reset tries anew
        with pytest.raises(MuvlaError, match="renderer: got 'none'"):
            refused.reset(seed=0)
        assert refused.pid is None
    with pytest.raises(WorkerError, match="ZeroDivisionError: no scene"):
        failed.reset(seed=0)
    assert failed.pid is None
    refused.close()
    failed.close()


def test_the_worker_ignores_ctrl_c(worker):
    os.kill(worker.pid, signal.SIGINT)  # perhaps before it has imported anything
    worker.reset(seed=0)
    os.kill(worker.pid, signal.SIGINT)
    assert worker.step(np.zeros(2))[1] == 0.25
