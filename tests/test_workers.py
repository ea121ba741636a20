"""An environment in its own process behaves as in this one, and its death costs one episode."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial

import gymnasium
import numpy as np
import pytest

from helpers.environments import CountingEnv, PictureEnv
from helpers.paths import ROOT, TESTS
from helpers.processes import is_running, running_below, shared_memory_of, wait_until
from muvla.envs.workers import Limits, WorkerEnv, WorkerError, WorkerLost, wait_any
from muvla.errors import MuvlaError


def refuse() -> gymnasium.Env:
    raise MuvlaError("renderer", got="none", expected="one", remedy="install one")


def fail() -> gymnasium.Env:
    raise ZeroDivisionError("no scene")


@pytest.fixture
def worker():
    env = WorkerEnv(partial(CountingEnv, 0.25))
    yield env
    env.close()


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
    with pytest.raises(WorkerError) as caught:
        worker.step(np.array([CountingEnv.RAISE, 0.0]))
    assert "KeyError: 'no such cube'" in str(caught.value) and "\n" not in str(caught.value)
    assert "Traceback" in caught.value.__notes__[0]
    with pytest.raises(MuvlaError) as info:
        worker.step(np.array([CountingEnv.REFUSE, 0.0]))
    assert info.value.field == "action"
    with pytest.raises(WorkerError) as caught:
        worker.attribute("nothing")
    assert "AttributeError" in str(caught.value)
    worker.reset(seed=0)
    assert worker.pid == pid


def test_a_process_that_dies_costs_one_episode(worker):
    first, _ = worker.reset(seed=5)
    worker.start_step(np.array([CountingEnv.DIE, 0.0]))
    with pytest.raises(WorkerLost) as caught:
        worker.finish()
    assert "exit code 7" in str(caught.value)
    assert worker.pid is None
    with pytest.raises(WorkerError):
        worker.start_step(np.zeros(2))
    again, _ = worker.reset(seed=5)
    np.testing.assert_array_equal(first, again)
    with pytest.raises(RuntimeError) as misused:
        worker.finish()
    assert misused.type is RuntimeError, "the caller's mistake, no error of the environment"
    os.kill(worker.pid, signal.SIGKILL)
    worker.start_step(np.zeros(2))  # as the rollout does: nothing is known of the death yet
    with pytest.raises(WorkerLost) as caught:
        worker.finish()
    assert "SIGKILL" in str(caught.value)


def test_a_process_that_hangs_is_ended():
    env = WorkerEnv(CountingEnv, Limits(step=0.2))
    env.reset(seed=0)
    pid = env.pid
    env.start_step(np.array([CountingEnv.HANG, 0.0]))
    with pytest.raises(WorkerLost) as caught:
        env.finish()
    assert "0.2 s" in str(caught.value)
    assert not is_running(pid)
    env.close()


def test_workers_step_at_the_same_time_and_close_leaves_no_process():
    envs = [WorkerEnv(CountingEnv) for _ in range(2)]
    for env in envs:
        env.reset(seed=0)
    pids = [env.pid for env in envs]
    for env in envs:
        env.start_step(np.array([CountingEnv.NAP, 0.0]))
    with pytest.raises(RuntimeError) as misused:
        envs[0].reset(seed=0)
    assert misused.type is RuntimeError
    (first_began, first_ended), (second_began, second_ended) = [env.finish()[4]["span"] for env in envs]
    assert max(first_began, second_began) < min(first_ended, second_ended)
    with pytest.raises(RuntimeError) as misused:
        envs[0].finish()
    assert misused.type is RuntimeError
    for env in envs:
        env.close()
        env.close()
    assert not any(is_running(pid) for pid in pids)


def test_an_environment_that_cannot_be_made_says_why():
    refused, failed = WorkerEnv(refuse), WorkerEnv(fail)
    for _ in range(2):  # every reset tries anew
        with pytest.raises(MuvlaError) as info:
            refused.reset(seed=0)
        assert info.value.field == "renderer"
        assert refused.pid is None
    with pytest.raises(WorkerError) as caught:
        failed.reset(seed=0)
    assert "ZeroDivisionError" in str(caught.value) and "no scene" in str(caught.value)
    assert failed.pid is None
    refused.close()
    failed.close()


def test_the_worker_ignores_ctrl_c(worker):
    os.kill(worker.pid, signal.SIGINT)  # perhaps before it has imported anything
    worker.reset(seed=0)
    os.kill(worker.pid, signal.SIGINT)
    assert worker.step(np.zeros(2))[1] == 0.25


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
        with pytest.raises(WorkerError) as caught:
            env.step(np.zeros(2))
        assert all(shape in str(caught.value) for shape in ("(1, 8, 8, 3)", "(2, 8, 8, 3)"))


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
        with pytest.raises(WorkerLost) as caught:
            slow.finish()
        assert "SIGKILL" in str(caught.value)


def test_a_start_that_hangs_has_a_limit_of_its_own():
    env = WorkerEnv(partial(time.sleep, 60), Limits(start=0.3))
    pid = env.pid
    with pytest.raises(WorkerLost) as caught:
        env.reset(seed=0)
    assert "0.3 s" in str(caught.value)
    assert not is_running(pid) and env.pid is None
    env.close()


def test_a_reset_that_hangs_has_a_limit_of_its_own():
    with contextlib.closing(WorkerEnv(SlowReset, Limits(reset=0.3))) as env:
        env.reset(seed=0)
        with pytest.raises(WorkerLost) as caught:
            env.reset(seed=1)
        assert "0.3 s" in str(caught.value)


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
    (tmp_path / "parent.py").write_text(
        textwrap.dedent(f"""
        import sys, time
        sys.path[:0] = {[str(TESTS), str(ROOT)]}
        from muvla.envs import workers
        from helpers.environments import CountingEnv, PictureEnv
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
    shared = shared_memory_of(parent.pid, *below)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_until(lambda: not any(is_running(pid) for pid in below))
    assert not any(file.exists() for file in shared)
