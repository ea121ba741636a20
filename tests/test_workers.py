"""An environment in its own process behaves as in this one, and its death costs one episode."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from troubled import wait_until

from muvla.envs.workers import Limits, WorkerEnv, WorkerError, WorkerLost, wait_any
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
    with pytest.raises(RuntimeError, match="without start_step or start_reset"):
        worker.finish()
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


def running_below(pid: int) -> list[int]:
    """The processes that `pid` has started and that still run, theirs too."""
    found, parents = [], {pid}
    status = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = place.read_text().rpartition(")")[2].split()[:2]
            status[int(place.parent.name)] = (state, int(parent))
    while parents:
        children = {child for child, (state, parent) in status.items() if parent in parents and state != "Z"}
        found += children
        parents = children
    return found


def test_frames_come_through_shared_memory_and_stay_as_they_were():
    """Not through the pipe, whatever is asked next; a picture of another shape is an error and no picture."""
    with contextlib.closing(WorkerEnv(PictureEnv)) as env:
        received = []
        env.reset(seed=0)
        receive = env._pipe.recv
        env._pipe.recv = lambda: received.append(receive()) or received[-1]
        frames = [env.step(np.zeros(2))[0] for _ in range(3)]
        assert [set(content[0][0]) for _, content in received] == [{"proprio"}] * 3
        for t, frame in enumerate(frames, start=1):
            assert frame["images"].shape == (2, 8, 8, 3) and frame["images"].dtype == np.uint8
            assert (frame["images"] == t).all() and (frame["proprio"] == t).all()
        with pytest.raises(WorkerError, match=r"ValueError: images \(1, 8, 8, 3\) uint8, its space has \(2, 8, 8, 3\)"):
            env.step(np.zeros(2))


def test_who_is_ready_is_known_without_waiting():
    with contextlib.closing(WorkerEnv(CountingEnv)) as slow, contextlib.closing(WorkerEnv(CountingEnv)) as fast:
        for env in (slow, fast):
            env.reset(seed=0)
        slow.start_step(np.array([CountingEnv.HANG, 0.0]))
        fast.start_step(np.zeros(2))
        while not fast.answered():
            wait_any([slow, fast])
        assert not slow.answered()
        fast.finish()
        wait_any([slow], patience=0.01)
        assert not slow.answered()
        os.kill(slow.pid, signal.SIGKILL)
        wait_any([slow])
        assert slow.answered()
        with pytest.raises(WorkerLost, match="SIGKILL"):
            slow.finish()


def test_a_start_that_hangs_has_a_limit_of_its_own():
    env = WorkerEnv(partial(time.sleep, 60), Limits(start=0.3))
    pid = env.pid
    with pytest.raises(WorkerLost, match=r"no answer to reset in 0\.3 s"):
        env.reset(seed=0)
    assert not is_running(pid) and env.pid is None
    env.close()


def test_a_reset_that_hangs_has_a_limit_of_its_own():
    with contextlib.closing(WorkerEnv(SlowReset, Limits(reset=0.3))) as env:
        env.reset(seed=0)
        with pytest.raises(WorkerLost, match=r"no answer to reset in 0\.3 s"):
            env.reset(seed=1)


class SlowReset(CountingEnv):
    def reset(self, *, seed=None, options=None):
        if seed == 1:
            time.sleep(60)
        return super().reset(seed=seed, options=options)


def test_a_process_is_replaced_after_its_episodes():
    with contextlib.closing(WorkerEnv(CountingEnv, Limits(episodes=2))) as env:
        pids, totals = [], []
        for seed in (3, 4, 3, 4, 3):
            totals.append(env.reset(seed=seed)[0].tolist())
            pids.append(env.pid)
        assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
        assert totals[0] == totals[2] == totals[4] and totals[1] == totals[3]
    assert wait_until(lambda: not any(is_running(pid) for pid in pids))


@pytest.mark.slow
@pytest.mark.parametrize("busy", [None, CountingEnv.HANG, CountingEnv.HANG_IN_C])
def test_nothing_is_left_of_a_parent_that_is_killed(busy, tmp_path):
    """No process, even of a worker that hangs, and no shared memory."""
    before = set(os.listdir("/dev/shm"))
    (tmp_path / "parent.py").write_text(
        textwrap.dedent(f"""
        import sys, time
        sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]}
        from muvla.envs import workers
        from test_workers import CountingEnv, PictureEnv
        import numpy as np
        if __name__ == "__main__":
            limits = workers.Limits(step=30.0 if {busy} == CountingEnv.HANG else 0.5)
            envs = [workers.WorkerEnv(kind, limits) for kind in (PictureEnv, CountingEnv)]
            for env in envs:
                env.reset(seed=0)
            if {busy} is not None:
                envs[1].start_step(np.array([{busy}, 0.0]))
            print("ready", flush=True)
            time.sleep(60)
        """)
    )
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "ready\n"
    below = running_below(parent.pid)
    assert len(below) >= 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_until(lambda: not any(is_running(pid) for pid in below))
    assert set(os.listdir("/dev/shm")) <= before
