"""A server in the test's process, a cheap policy with a memory, and clients that count every byte."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading

import numpy as np

from muvla.serving.gate import Gate
from muvla.serving.observation import Needs, Observed
from muvla.serving.regime import Regime
from muvla.serving.server import Server
from muvla.serving.sessions import Limits, Sessions
from muvla.serving.slots import Slots


class HashSlots(Slots):
    """A policy whose memory is a hash of all frames of the episode: one foreign or repeated frame changes all answers.

    The instruction `boom` raises, `nan` breaks the numbers of its slot.
    """

    def __init__(self, count: int = 8, chunk: int = 4, cameras: int = 1, side: int = 8, recurrent: bool = True):
        self.count, self.chunk, self.recurrent = count, chunk, recurrent
        self.needs = Needs(cameras, proprio=3, reads_proprio=True, side=side)
        self.memory = [b""] * count
        self.batches: list[int] = []

    def config(self):
        return {"policy": "hash", "slots": self.count, "action": 2, "chunk": self.chunk}

    def start(self, slot, seed):
        self.memory[slot] = str(seed).encode()

    def tick(self, frames, steps):
        self.batches.append(len(frames))
        return {slot: self._one(slot, frame, steps[slot]) for slot, frame in frames.items()}

    def _one(self, slot, frame, step):
        if frame.instruction == "boom":
            return ValueError("boom")
        self.memory[slot] = advance(self.memory[slot], frame, step)
        return chunk_of(self.memory[slot], self.chunk)


def advance(memory: bytes, frame: Observed, step: int) -> bytes:
    parts = (memory, frame.images.tobytes(), frame.proprio.tobytes(), frame.instruction.encode(), str(step).encode())
    return hashlib.blake2b(b"|".join(parts), digest_size=16).digest()


def chunk_of(memory: bytes, chunk: int) -> np.ndarray:
    numbers = np.frombuffer(hashlib.blake2b(memory, digest_size=chunk * 2).digest(), dtype=np.uint8)
    return (numbers.astype(np.float32) / 255).reshape(chunk, 2)


def frame(seed: int, side: int = 8, instruction: str = "touch it", cameras: int = 1) -> Observed:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (cameras, side, side, 3), dtype=np.uint8)
    return Observed(images, rng.standard_normal(3).astype(np.float32), instruction)


def alone(frames, chunk: int = 4, seed: int = 0) -> list[np.ndarray]:
    """The first actions (2,) of an episode whose frames nobody else shares."""
    memory, answers = str(seed).encode(), []
    for step, observed in enumerate(frames):
        memory = advance(memory, observed, step)
        answers.append(chunk_of(memory, chunk)[0])
    return answers


@contextlib.contextmanager
def running(slots: Slots, regime: Regime | None = None, limits: Limits | None = None, root="vla-eval", **access):
    """A server on a free port of this machine, in a thread; yields the Server."""
    loop, ready, stop, box = asyncio.new_event_loop(), threading.Event(), threading.Event(), []

    async def serve():
        chosen = regime or Regime()
        gate = Gate(
            Sessions(slots, chosen, limits), {"server": "muvla"} | slots.config() | {"regime": chosen.plain()}, **access
        )
        server = Server(gate, port=0, root=root)
        await server.start()
        server.loop = loop
        box.append(server)
        ready.set()
        await server.run(stop.is_set)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield box[0]
    finally:
        stop.set()
        thread.join(15)
        assert not thread.is_alive()
        loop.close()
