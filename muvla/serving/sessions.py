"""Sessions: many clients, one policy, one batch shape.

A session is a client's stream of episodes. While its episode runs, it holds a slot of the policy. Requests that are
there within the window go through one forward pass. Nothing here knows a wire.

Legend: A action dim.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from muvla.errors import MuvlaError
from muvla.serving.metrics import Metrics
from muvla.serving.observation import Observed
from muvla.serving.refusal import BROKEN, CONFLICT, TOO_MANY, UNAVAILABLE, Refused
from muvla.serving.regime import ActionQueue, Regime
from muvla.serving.slots import Slots

MOST_SESSIONS = 1024  # open at once; sessions between episodes cost a few kilobytes each


@dataclass(frozen=True)
class Limits:
    """How a server treats its sessions. No limit changes an answer.

    Attributes:
        window: seconds that a request waits for the requests of other sessions.
        silence: seconds after which a silent session is closed.
        when_full: a session that finds no free slot waits in a queue, or is refused.
        queue: most sessions that wait.
        rate: most requests per second and session; short bursts of as many are allowed.
    """

    window: float = 0.002
    silence: float = 60.0
    when_full: Literal["queue", "refuse"] = "queue"
    queue: int = 64
    rate: float = 1000.0


@dataclass
class Answer:
    """The actions of one request."""

    actions: np.ndarray  # (n, A), not normalised
    seconds: float  # of the forward pass; 0 without one

    @property
    def message(self) -> np.ndarray:
        """The actions as wires of arrays send them: (n, A) float32 without gaps."""
        return np.ascontiguousarray(self.actions, dtype=np.float32)


@dataclass(eq=False)
class Session:
    """One client. `slot` is None between its episodes."""

    name: str
    owner: str = ""  # address of the client, where the wire shares names
    slot: int | None = None
    step: int = 0  # environment step of the next frame
    actions: ActionQueue | None = None
    sequence: int | None = None  # of the last request
    frame: Observed | None = None  # of the last request
    answer: asyncio.Future | None = None  # to the last request
    under_way: asyncio.Future | None = None  # the forward pass that reads and writes the slot
    is_busy: bool = False  # a request waits for its answer
    closed: str = ""  # why the session was closed
    seen: float = field(default_factory=time.monotonic)
    allowance: float = 0.0  # requests that the rate allows now


class Sessions:
    """All sessions of one server.

    Call `start` in the event loop and `stop` at the end. All methods belong to the event loop's thread; the policy runs
    in a thread of its own.

    Args:
        slots: the policy.
        regime: how chunks become actions.
        limits: of the server.

    Raises:
        MuvlaError: the policy's chunk is too short for the regime.
    """

    def __init__(self, slots: Slots, regime: Regime, limits: Limits | None = None):
        regime.require_chunk(slots.chunk)
        self.slots, self.regime, self.limits = slots, regime, limits or Limits()
        self.metrics = Metrics()
        self.sessions: dict[str, Session] = {}
        self._free = list(range(slots.count))
        self._waiting: list[asyncio.Future] = []
        self._pending: dict[int, tuple[Observed, int, asyncio.Future]] = {}
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="policy")
        self._tasks: list[asyncio.Task] = []
        self.is_stopping = False
        self.metrics.gauges = {
            "sessions": lambda: len(self.sessions),
            "slots_in_use": lambda: self.slots.count - len(self._free),
            "queue": lambda: len(self._waiting),
            "pending": lambda: len(self._pending),
        }

    # --- the server's life --------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._close_silent())]

    async def stop(self) -> None:
        """Answer what has arrived, refuse the rest, and end."""
        self.is_stopping = True
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(_stopping())
        while self._pending or any(session.is_busy and session.slot is not None for session in self.sessions.values()):
            await asyncio.sleep(0.005)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.shutdown()

    # --- a session's life ---------------------------------------------------------------------------------------------

    def open(self, name: str, owner: str = "") -> Session:
        """Return a new session. Raises Refused while the server stops, or if the name is in use."""
        if self.is_stopping:
            raise _stopping()
        if name in self.sessions:
            raise Refused(
                "session",
                got=f"{name!r}, which is in use",
                expected="a name of one client",
                remedy="choose another session name",
                status=CONFLICT,
            )
        if len(self.sessions) >= MOST_SESSIONS:
            raise Refused(
                "session",
                got=f"session number {len(self.sessions) + 1}",
                expected=f"at most {MOST_SESSIONS} sessions",
                remedy="close sessions, or wait until silent sessions are closed",
                status=UNAVAILABLE,
            )
        session = self.sessions[name] = Session(name, owner, allowance=self.limits.rate)
        return session

    async def begin(self, session: Session, seed: int = 0) -> None:
        """Begin an episode: the memory of the session's slot starts anew.

        Waits for a free slot where the server queues sessions.

        Args:
            session: an open session.
            seed: keys the random draws of the policy.

        Raises:
            Refused: no slot is free, a request of the session is under way, or the server stops.
        """
        self._touch(session)
        if session.is_busy:
            raise _two_at_once(session)
        session.is_busy = True
        try:
            if session.slot is None:
                session.slot = await self._take_slot()
            if session.closed:  # while it waited
                self._release(session)
                self._require_open(session)
        finally:
            session.is_busy = False
        session.step, session.actions, session.frame = 0, ActionQueue(self.regime), None
        session.answer = None
        self.slots.start(session.slot, seed)

    async def act(
        self, session: Session, frame: Observed, sequence: int | None = None, step: int | None = None
    ) -> Answer:
        """Return the actions for a frame. One call is one request of the session's episode.

        Args:
            session: a session whose episode runs.
            frame: the observation.
            sequence: number of the request; it grows. The same number again gets the same answer, and writes no memory.
            step: environment step of the frame, where the client says it; else steps are counted.

        Raises:
            Refused: the session has no episode, the sequence number went back, or the policy failed on this frame.
        """
        started = time.perf_counter()
        self._touch(session)
        if (repeated := self._repeated(session, frame, sequence)) is not None:
            self.metrics.duplicates += 1
            return await asyncio.shield(repeated)
        if session.is_busy:
            raise _two_at_once(session)
        if session.slot is None:
            raise _not_begun(session)
        if step is not None:
            session.step = step
        before = session.sequence, session.frame, session.answer
        if sequence is not None and session.sequence is not None:
            self.metrics.gaps += sequence - session.sequence - 1
        answer = asyncio.get_running_loop().create_future()
        session.sequence, session.frame, session.answer, session.is_busy = sequence, frame, answer, True
        try:
            result = await self._answer(session, frame)
        except BaseException as error:
            session.sequence, session.frame, session.answer = before  # the same number may be tried again
            answer.set_exception(error if isinstance(error, Exception) else _stopping())
            answer.exception()  # nobody else may wait for it
            raise
        finally:
            session.is_busy = False
            if session.closed:
                self._release(session)
        answer.set_result(result)
        self.metrics.latency.append(time.perf_counter() - started)
        return result

    def end(self, session: Session) -> None:
        """End the session's episode, and give its slot to the next session."""
        if not session.is_busy:
            self._release(session)

    def close(self, session: Session, reason: str = "the client left") -> None:
        """Close a session for good."""
        session.closed = reason
        self.sessions.pop(session.name, None)
        if not session.is_busy:
            self._release(session)

    # --- within -------------------------------------------------------------------------------------------------------

    async def _answer(self, session: Session, frame: Observed) -> Answer:
        seconds, chunk = 0.0, None
        if session.actions.needs_tick:
            chunk, seconds = await self._submit(session, frame)
        actions = session.actions.take(chunk)
        session.step += self.regime.steps
        return Answer(actions, seconds)

    def _submit(self, session: Session, frame: Observed) -> Awaitable[tuple[np.ndarray, float]]:
        future = session.under_way = asyncio.get_running_loop().create_future()
        self._pending[session.slot] = (frame, session.step, future)
        self._arrived.set()
        return asyncio.shield(future)

    def _repeated(self, session: Session, frame: Observed, sequence: int | None) -> asyncio.Future | None:
        if sequence is None or session.sequence is None or sequence > session.sequence:
            return None
        if sequence == session.sequence and session.answer is not None and frame.equals(session.frame):
            return session.answer
        got = f"{sequence} after {session.sequence}"
        if sequence == session.sequence:
            got = f"another frame under the number {sequence}"
        raise Refused(
            "sequence",
            got=got,
            expected="a number that grows with every frame of the session",
            remedy="send frames in order, and drop late ones; a new client takes a new session",
            status=CONFLICT,
        )

    def _touch(self, session: Session) -> None:
        self._require_open(session)
        now = time.monotonic()
        session.allowance = min(self.limits.rate, session.allowance + (now - session.seen) * self.limits.rate)
        session.seen = now
        if session.allowance < 1:
            raise Refused(
                "rate",
                got=f"more than {self.limits.rate:g} requests a second",
                expected=f"at most {self.limits.rate:g} a second and session",
                remedy="send frames at the robot's control rate, or start the server with a larger --rate",
                status=TOO_MANY,
            )
        session.allowance -= 1

    def _require_open(self, session: Session) -> None:
        if self.is_stopping:
            raise _stopping()
        if session.closed:
            raise Refused(
                "session",
                got=f"a session that is closed: {session.closed}",
                expected="an open session",
                remedy="connect again, and start an episode",
                status=CONFLICT,
            )

    async def _take_slot(self) -> int:
        if self._free:
            return self._free.pop(0)
        full = self.limits.when_full == "refuse" or len(self._waiting) >= self.limits.queue
        if full:
            raise Refused(
                "slots",
                got=f"{self.slots.count} episodes under way, {len(self._waiting)} sessions waiting",
                expected="a free slot",
                remedy="try again later, or start the server with more --slots",
                status=UNAVAILABLE,
            )
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                self._give(waiting.result())
            raise
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    def _release(self, session: Session) -> None:
        slot, session.slot, session.actions = session.slot, None, None
        session.frame = session.answer = None  # a repeat after the episode's end is refused
        if slot is None:
            return
        if session.under_way is not None and not session.under_way.done():
            session.under_way.add_done_callback(lambda _: self._give(slot))  # the pass still writes the slot
        else:
            self._give(slot)

    def _give(self, slot: int) -> None:
        while self._waiting:
            waiting = self._waiting.pop(0)
            if not waiting.done():
                waiting.set_result(slot)
                return
        self._free.append(slot)

    async def _run(self) -> None:
        """Make forward passes, one after the other."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            await self._gather()
            batch, self._pending = self._pending, {}
            self._arrived.clear()
            frames = {slot: frame for slot, (frame, _, _) in batch.items()}
            steps = {slot: step for slot, (_, step, _) in batch.items()}
            started = time.perf_counter()
            try:
                chunks = await loop.run_in_executor(self._thread, self.slots.tick, frames, steps)
            except Exception as error:
                chunks = dict.fromkeys(batch, error)
            seconds = time.perf_counter() - started
            self.metrics.ticks += 1
            self.metrics.computing.append(seconds)
            self.metrics.batches.append(len(batch))
            for slot, (_, _, future) in batch.items():
                if future.done():
                    continue
                if isinstance(chunks[slot], Exception):
                    future.set_exception(failed(chunks[slot]))
                else:
                    future.set_result((chunks[slot], seconds))

    async def _gather(self) -> None:
        """Wait for the window, or until every running episode has a frame here."""
        deadline = time.perf_counter() + self.limits.window
        while (left := deadline - time.perf_counter()) > 0:
            running = self.slots.count - len(self._free)
            if len(self._pending) >= running:
                return
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except TimeoutError:
                return

    async def _close_silent(self) -> None:
        while True:
            await asyncio.sleep(self.limits.silence / 4)
            now = time.monotonic()
            for session in list(self.sessions.values()):
                if now - session.seen > self.limits.silence and not session.is_busy:
                    self.close(session, f"silent for {self.limits.silence:g} seconds")


def _stopping() -> Refused:
    return Refused(
        "server",
        got="a server that stops",
        expected="a running server",
        remedy="connect again when the server is back, and start the episode anew",
        status=UNAVAILABLE,
    )


def _two_at_once(session: Session) -> Refused:
    return Refused(
        "session",
        got=f"two requests of {session.name!r} at once",
        expected="one request at a time",
        remedy="wait for the answer, and give every client a session of its own",
        status=CONFLICT,
    )


def _not_begun(session: Session) -> Refused:
    return Refused(
        "session",
        got=f"a frame of {session.name!r} before its episode's start",
        expected="an episode's start first",
        remedy="start an episode; it resets the memory",
        status=CONFLICT,
    )


def failed(error: Exception) -> Refused:
    """The error of a request that the policy or the server could not carry out."""
    if isinstance(error, Refused):
        return error
    text = str(error) if isinstance(error, MuvlaError) else f"{type(error).__name__}: {error}"
    return Refused(
        "policy",
        got=f"a failure ({text})",
        expected="an observation that the policy takes",
        remedy="the memory stays as it was before this frame: send another frame, or start a new episode",
        status=BROKEN,
    )
