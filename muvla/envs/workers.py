"""An environment in its own process, behind the same interface.

For simulators that keep global state, crash or hang (MIKASA on SAPIEN): one environment per process, so that several
step at the same time and a crash costs one episode.

    for env in envs: env.start_step(action)  # all of them run
    for env in envs: env.finish_step()  # then wait for each
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import traceback
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
import numpy as np

from muvla.errors import MuvlaError

_GRACE = 10.0  # seconds that a process has to end by itself after its pipe was closed
_SPAWN = multiprocessing.get_context("spawn")  # a fork would copy torch's threads and the simulator's state half-way


class WorkerError(RuntimeError):
    """The worker's environment raised, its process died, or it did not answer in time. The message is one line."""


class WorkerEnv(gymnasium.Env):
    """The environment that `factory` makes, in a spawned process. Same reset and step, arrays pickled over a pipe.

    factory: picklable, takes nothing (`functools.partial(make_env, task, image_size)`). The process starts at once and
    is first waited for when something is asked of it, so several start side by side.
    timeout: seconds to wait for any one answer, the start included.

    What the environment raises comes back as WorkerError naming type and text, with its traceback as a note; a
    MuvlaError comes back as itself. After a death or a timeout the next `reset` starts a fresh process.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (gymnasium's own convention)

    def __init__(self, factory: Callable[[], gymnasium.Env], timeout: float = 120.0):
        self._factory, self._timeout = factory, timeout
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        self._attributes: dict[str, Any] = {}
        self._stepping = False
        self._start()

    @property
    def observation_space(self) -> gymnasium.Space:
        return self.attribute("observation_space")

    @property
    def action_space(self) -> gymnasium.Space:
        return self.attribute("action_space")

    @property
    def pid(self) -> int | None:
        """Of the worker's process; None when it is gone."""
        return self._process.pid if self._process else None

    def attribute(self, name: str) -> Any:
        """A constant attribute of the environment, fetched once: `instruction`, `step_limit`, `render_backend`, ..."""
        if name not in self._attributes:
            self._send("attribute", name)
            self._attributes[name] = self._receive()
        return self._attributes[name]

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict[str, Any]]:
        if self._process is None:
            self._start()
        self._send("reset", seed, options)
        return self._receive()

    def start_step(self, action: np.ndarray) -> None:
        """Lets the worker step and returns at once; a dead worker is reported by `finish_step`."""
        self._send("step", action)
        self._stepping = True

    def finish_step(self) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """What the step under way returns. Raises WorkerError, or the environment's own MuvlaError."""
        if not self._stepping:
            raise RuntimeError("finish_step without start_step")
        self._stepping = False
        return self._receive()

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.start_step(action)
        return self.finish_step()

    def close(self) -> None:
        """Ends the process: first by closing its pipe, which lets the environment close, then by force."""
        if self._process is not None:
            self._pipe.close()
            self._process.join(_GRACE)
            self._discard()

    def _start(self) -> None:
        self._pipe, childs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(childs, self._factory), daemon=True)
        # The child inherits a blocked Ctrl-C, so that none can print a traceback before it ignores it by itself. The
        # tracker comes first because starting it would unblock the signal here.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            childs.close()
        self._starting = True

    def _send(self, *request: Any) -> None:
        if self._stepping:
            raise RuntimeError(f"{request[0]} while a step is under way: finish_step first")
        if self._process is None:
            raise WorkerError("the environment's process is gone; reset starts a fresh one")
        if self._starting:
            self._starting = False
            try:
                self._receive()
            except Exception:  # the environment could not be made
                self._discard()
                raise
        with contextlib.suppress(OSError):  # a dead process is found, with its exit code, when its answer is awaited
            self._pipe.send(request)

    def _receive(self) -> Any:
        try:
            if not self._pipe.poll(self._timeout):
                self._discard()
                raise WorkerError(f"the environment's process gave no answer in {self._timeout:g} s and was ended")
            kind, content = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join(_GRACE)
            code = self._process.exitcode
            name = f", {signal.Signals(-code).name}" if code is not None and code < 0 else ""
            self._discard()
            raise WorkerError(f"the environment's process died (exit code {code}{name})") from None
        if kind == "error":
            raise content
        return content

    def _discard(self) -> None:
        """Forget the process, ended by force if it still runs."""
        if self._process is None:
            return
        self._pipe.close()
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._process.close()
        self._process = self._pipe = None
        self._stepping = False


def _serve(pipe: Connection, factory: Callable[[], gymnasium.Env]) -> None:
    """The worker's process: answers requests until the parent closes the pipe or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the parent decides
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    env = None
    with contextlib.suppress(EOFError, ConnectionError):
        try:
            env = factory()
        except Exception as error:
            pipe.send(("error", _portable(error)))
            return
        pipe.send(("done", None))
        while True:
            name, *arguments = pipe.recv()
            try:
                answer = ("done", _do(env, name, arguments))
            except Exception as error:
                answer = ("error", _portable(error))
            pipe.send(answer)
    if env is not None:
        with contextlib.suppress(Exception):
            env.close()


def _do(env: gymnasium.Env, name: str, arguments: list[Any]) -> Any:
    if name == "reset":
        return env.reset(seed=arguments[0], options=arguments[1])
    return env.step(*arguments) if name == "step" else getattr(env, *arguments)


def _portable(error: Exception) -> Exception:
    """The error as something that every parent can unpickle."""
    if isinstance(error, MuvlaError):
        return error
    where = traceback.extract_tb(error.__traceback__)[-1]
    portable = WorkerError(f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})")
    portable.add_note("in the worker:\n" + "".join(traceback.format_exception(error)))
    return portable
