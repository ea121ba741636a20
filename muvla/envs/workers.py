"""An environment in a process of its own, behind the same interface.

Simulators keep global state, crash, hang and leak (MIKASA on SAPIEN). With one environment per process several can step
at the same time, and a crash costs one episode.

    for env in envs: env.start_step(action)  # all run
    wait_any(envs)  # at least one has answered
    for env in envs: if env.answered(): env.finish()

Frames travel through memory that both processes map, everything else through a pipe. The shared memory has no name, so
memory and worker disappear with the parent, however the parent ends.
"""

from __future__ import annotations

import contextlib
import faulthandler
import math
import mmap
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import reduction, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from muvla.errors import MuvlaError

_GRACE = 10.0  # seconds in which a process must end after its pipe was closed
# A fork would copy torch's threads and the simulator's state incompletely.
_SPAWN = multiprocessing.get_context("spawn")


class WorkerError(RuntimeError):
    """The worker's environment raised an exception. The message is one line."""


class WorkerLost(WorkerError):
    """The worker's process died, or was ended because no answer came in time. Another process may succeed."""


@dataclass(frozen=True)
class Limits:
    """Seconds after which a worker counts as hung, far above measured times, and episodes per process.

    start: imports, scene and shaders, while other workers start too.
    episodes: a process is replaced after so many episodes, because simulators leak memory.
    """

    start: float = 300.0
    reset: float = 120.0
    step: float = 60.0
    episodes: int = 50


class WorkerEnv(gymnasium.Env):
    """The environment that `factory` makes, in a spawned process.

    `reset` and `step` also come in two halves: a start that returns at once, and `finish`. The process starts in the
    constructor and is waited for at the first request, so several processes start at the same time.

    An exception of the environment becomes a WorkerError with type and text, and with the traceback as a note; a
    MuvlaError stays a MuvlaError. After a WorkerLost, and after `limits.episodes` episodes, the next reset starts a new
    process.

    Args:
        factory: picklable, without arguments (`functools.partial(make_env, task, image_size)`).
        limits: see `Limits`.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (gymnasium's own convention)

    def __init__(self, factory: Callable[[], gymnasium.Env], limits: Limits = Limits()):
        self._factory, self.limits = factory, limits
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        self._frames: np.ndarray | None = None  # (V, h, w, 3), mapped
        self._ending: list[multiprocessing.process.BaseProcess] = []  # processes whose pipes are closed
        self._attributes: dict[str, Any] = {}
        self._under_way: str | None = None  # the request without an answer
        self._answer: tuple[str, Any] | None = None
        self._deadline = math.inf  # monotonic
        self.seconds = 0.0  # time inside the environment for the last result of `finish`
        self._start()

    @property
    def observation_space(self) -> gymnasium.Space:
        return self.attribute("observation_space")

    @property
    def action_space(self) -> gymnasium.Space:
        return self.attribute("action_space")

    @property
    def pid(self) -> int | None:
        """Id of the worker's process; None after its end."""
        return self._process.pid if self._process else None

    def attribute(self, name: str, *default: Any) -> Any:
        """A constant attribute of the environment, for example `step_limit`, fetched once.

        Starts a new process where there is none.
        """
        if name not in self._attributes:
            if self._process is None:
                self._start()
            self._send("attribute", self.limits.step, name, *default)
            self._attributes[name] = self.finish()
        return self._attributes[name]

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict[str, Any]]:
        self.start_reset(seed, options)
        return self.finish()

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.start_step(action)
        return self.finish()

    def start_reset(self, seed: int | None = None, options: dict | None = None) -> None:
        if self._under_way is None and self._episodes >= self.limits.episodes:
            self.retire()
        if self._process is None:
            self._start()
        self._send("reset", self.limits.reset, seed, options)
        self._episodes += 1

    def start_step(self, action: np.ndarray) -> None:
        self._send("step", self.limits.step, action)

    def answered(self) -> bool:
        """True if `finish` would return at once: an answer came, the process died, or its time is over."""
        return self._listen(0.0)

    def finish(self) -> Any:
        """The result of the request under way. Raises WorkerError, or the environment's MuvlaError."""
        if self._under_way is None:
            raise RuntimeError("finish without start_step or start_reset")
        self._listen(math.inf)
        (status, content), self._answer, self._under_way = self._answer, None, None
        if status == "error":
            raise content
        content, self.seconds = content
        return content

    def retire(self) -> None:
        """Close the pipe, upon which the process ends. The next reset starts a new process."""
        if self._process is not None:
            self._ending.append(self._process)
            self._forget()

    def close(self) -> None:
        """End every process: close its pipe, so that the environment can close, and kill the process after a while."""
        self.retire()
        for process in self._ending:
            process.join(_GRACE)
            _end(process)
        self._ending.clear()

    def _start(self) -> None:
        self._pipe, childs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(childs, self._factory, self.limits), daemon=True)
        # The child inherits a blocked Ctrl-C: before it ignores the signal, it cannot print a traceback. The tracker
        # starts first, because its start would unblock the signal here.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            childs.close()
        self._starting, self._episodes = time.monotonic() + self.limits.start, 0

    def _send(self, name: str, seconds: float, *arguments: Any) -> None:
        if self._under_way is not None:
            raise RuntimeError(f"{name} while a {self._under_way} is under way: finish first")
        if self._process is None:
            raise WorkerError("the environment's process has ended; reset starts a fresh one")
        self._under_way, self._allowed = name, seconds
        self._deadline = self._starting or time.monotonic() + seconds
        with contextlib.suppress(OSError):  # `_listen` reports a dead process with its exit code
            self._pipe.send((name, *arguments))

    def _listen(self, patience: float) -> bool:
        """Receive the answer, waiting at most `patience` seconds; True if an answer is there."""
        until = time.monotonic() + patience
        try:
            while self._answer is None and self._pipe.poll(max(0.0, min(until, self._deadline) - time.monotonic())):
                status, content = self._pipe.recv()
                if status == "made":  # sent once; from now on the limit of the request counts
                    self._frames = None if content is None else _mapped(reduction.recv_handle(self._pipe), *content)
                    self._starting, self._deadline = None, time.monotonic() + self._allowed
                else:
                    self._answer = status, self._with_frames(content) if status == "done" else content
                    if self._starting:  # the environment could not be made
                        self._discard()
        except (EOFError, ConnectionError):
            self._process.join(_GRACE)
            code = self._process.exitcode
            name = f", {signal.Signals(-code).name}" if code is not None and code < 0 else ""
            self._lose(f"the environment's process died (exit code {code}{name})")
        if self._answer is None and time.monotonic() >= self._deadline:
            seconds = self.limits.start if self._starting else self._allowed
            self._lose(f"the environment's process gave no answer to {self._under_way} in {seconds:g} s and was ended")
        return self._answer is not None

    def _with_frames(self, content: tuple[Any, float]) -> tuple[Any, float]:
        if self._frames is None or self._under_way == "attribute":
            return content
        (observation, *rest), seconds = content
        return ({"images": self._frames.copy(), **observation}, *rest), seconds

    def _lose(self, why: str) -> None:
        self._discard()
        self._answer = "error", WorkerLost(why)

    def _discard(self) -> None:
        """Forget the process, and kill it if it runs."""
        process = self._process
        under_way, answer = self._under_way, self._answer
        self._forget()
        self._under_way, self._answer = under_way, answer
        _end(process)

    def _forget(self) -> None:
        self._pipe.close()
        self._process = self._pipe = self._frames = self._under_way = self._answer = None


class LocalEnv:
    """An environment in this process with the interface of a WorkerEnv; requests are executed at once."""

    def __init__(self, env: gymnasium.Env):
        self.env, self.seconds = env, 0.0

    def attribute(self, name: str, *default: Any) -> Any:
        return getattr(self.env, name, *default)

    def start_reset(self, seed: int) -> None:
        self._do(lambda: self.env.reset(seed=seed))

    def start_step(self, action: np.ndarray) -> None:
        self._do(lambda: self.env.step(action))

    def answered(self) -> bool:
        return True

    def finish(self) -> Any:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def retire(self) -> None:
        """A local environment has no process to end."""

    def close(self) -> None:
        self.env.close()

    def _do(self, call: Callable[[], Any]) -> None:
        began = time.perf_counter()
        try:
            self._answer = call()
        except Exception as error:
            self._answer = error
        self.seconds = time.perf_counter() - began


def wait_any(envs: Sequence[WorkerEnv | LocalEnv], patience: float = math.inf) -> None:
    """Return when at least one environment has answered, or after at most `patience` seconds."""
    if any(env.answered() for env in envs):
        return
    until = min(env._deadline for env in envs) - time.monotonic()
    wait([env._pipe for env in envs], max(0.0, min(patience, until)))


def close_all(envs: Sequence[WorkerEnv | LocalEnv]) -> None:
    """Close all environments; their processes end at the same time."""
    for env in envs:
        env.retire()
    for env in envs:
        env.close()


def _end(process: multiprocessing.process.BaseProcess) -> None:
    if process.is_alive():
        process.kill()
    process.join()
    process.close()


# --- in the worker's process ------------------------------------------------------------------------------------------


def _serve(pipe: Connection, factory: Callable[[], gymnasium.Env], limits: Limits) -> None:
    """Answer requests until the parent closes the pipe or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of the terminal; the parent decides
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    env, seconds = None, {"reset": limits.reset, "step": limits.step, "attribute": limits.step}
    with contextlib.suppress(EOFError, ConnectionError):
        try:
            with _at_most(limits.start):
                env = factory()
        except Exception as error:
            pipe.send(("error", _portable(error)))
            return
        frames = _share_frames(env.observation_space, pipe)
        while True:
            name, *arguments = pipe.recv()
            try:
                with _at_most(seconds[name]):
                    answer = ("done", _do(env, frames, name, arguments))
            except Exception as error:
                answer = ("error", _portable(error))
            pipe.send(answer)
    if env is not None:
        with contextlib.suppress(Exception), _at_most(_GRACE):
            env.close()


def _end_with_parent() -> None:
    """Exit when the parent has ended, even during a step."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """End this process if the block takes clearly longer than `seconds`.

    This works even inside C code that lets no other thread run. A hanging worker may have no parent that ends it.
    """
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(seconds + _GRACE, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def _do(env: gymnasium.Env, frames: np.ndarray | None, name: str, arguments: list[Any]) -> tuple[Any, float]:
    """Execute a request: the result and the seconds inside the environment. Images go into `frames`."""
    if name == "attribute":
        return getattr(env, *arguments), 0.0
    began = time.perf_counter()
    if name == "reset":
        observation, *rest = env.reset(seed=arguments[0], options=arguments[1])
    else:
        observation, *rest = env.step(*arguments)
    seconds = time.perf_counter() - began
    if frames is not None:
        observation = dict(observation)
        images = np.asarray(observation.pop("images"))
        if (images.shape, images.dtype) != (frames.shape, frames.dtype):
            raise ValueError(f"images {images.shape} {images.dtype}, its space has {frames.shape} {frames.dtype}")
        frames[...] = images
    return (observation, *rest), seconds


def _share_frames(space: gymnasium.Space, pipe: Connection) -> np.ndarray | None:
    """Report that the environment is made, and share memory of the size of its images, if it has images."""
    images = space["images"] if isinstance(space, spaces.Dict) and "images" in space.spaces else None
    if images is None:
        pipe.send(("made", None))
        return None
    memory = os.memfd_create("frames")
    os.ftruncate(memory, math.prod(images.shape) * images.dtype.itemsize)
    pipe.send(("made", (images.shape, images.dtype.str)))
    reduction.send_handle(pipe, memory, os.getppid())
    return _mapped(memory, images.shape, images.dtype.str)


def _mapped(memory: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """The array in a memory file. The file is closed; the mapping keeps the memory."""
    try:
        return np.frombuffer(mmap.mmap(memory, 0), dtype).reshape(shape)
    finally:
        os.close(memory)


def _portable(error: Exception) -> Exception:
    """The error in a form that every parent can unpickle."""
    if isinstance(error, MuvlaError):
        return error
    where = traceback.extract_tb(error.__traceback__)[-1]
    portable = WorkerError(f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})")
    portable.add_note("in the worker:\n" + "".join(traceback.format_exception(error)))
    return portable
