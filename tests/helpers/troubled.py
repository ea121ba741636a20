"""Environments that make trouble, for tests; their processes import this file and no model."""

import os
import signal
import time
from pathlib import Path

from helpers.processes import wait_until
from muvla.envs.recall.env import RecallEnv

TASK, EPISODES = "RecallPosition3-v0", 8


class Troubled(RecallEnv):
    """`trouble` says what happens at the second step of which episode; files in `folder` say what has happened."""

    def __init__(self, folder: Path, trouble: dict[int, str]):
        super().__init__(TASK)
        self.folder, self.trouble = folder, trouble

    def reset(self, *, seed=None, options=None):
        self.seed = seed
        (self.folder / f"begun-{seed}-{time.monotonic_ns()}").touch()
        return super().reset(seed=seed, options=options)

    def step(self, action):
        kind = self.trouble.get(self.seed) if self.t == 1 else None
        if kind == "die once" and len(list(self.folder.glob(f"begun-{self.seed}-*"))) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        if kind == "hang" or (kind == "wait for the others" and not wait_until(self.others_are_done)):
            time.sleep(60)
        if kind == "be slow":
            time.sleep(0.03)
        return super().step(action)

    def others_are_done(self):
        begun = {path.name.split("-")[1] for path in self.folder.glob("begun-*")}
        return len(begun) == EPISODES


def lost_at_start(folder: Path, times: int, kind: str = "die") -> RecallEnv:
    """An environment whose process is lost so many times, or fails, before there is one."""
    (folder / f"started-{time.monotonic_ns()}").touch()
    if len(list(folder.glob("started-*"))) <= times:
        if kind == "raise":
            raise OSError("no such library")
        os.kill(os.getpid(), signal.SIGKILL)
    return RecallEnv(TASK)


class ThreeCameras(RecallEnv):
    def __init__(self):
        super().__init__(TASK)
        images = self.observation_space["images"]
        self.observation_space["images"] = type(images)(0, 255, (3, *images.shape[1:]), images.dtype)


class Broken(RecallEnv):
    """An environment whose every step raises."""

    def step(self, action):
        raise ValueError("the physics exploded")
