"""The wire of openpi: a websocket on which the server sends its metadata, and then answers observations.

A connection is a session. The wire has no message for an episode's start. A recurrent policy is served only to a client
that says `episode_start` in its observation, or under one episode per connection. After an error the server sends a
text and closes the connection, as openpi does.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from aiohttp import WSCloseCode, WSMsgType, web

from muvla.serving.codec import decode_message, encode_message
from muvla.serving.gate import Gate
from muvla.serving.observation import Observed
from muvla.serving.refusal import Refused
from muvla.serving.sessions import Session

WIRE = "openpi"
STATES = ("observation/state", "state")


async def handle(request: web.Request) -> web.WebSocketResponse:
    """One connection."""
    gate: Gate = request.app[Gate.KEY]
    async with gate.connection(request, WIRE) as (socket, session):
        connection = Connection(gate, session)
        await socket.send_bytes(encode_message(gate.config, WIRE))
        async for message in socket:
            try:
                if message.type is WSMsgType.TEXT:
                    raise _refused("message", "a frame of text", "a binary frame", "send msgpack")
                answer = await connection.answer(message.data)
            except Exception as fault:
                error = gate.refuse(fault)
                await socket.send_str(str(error))
                await socket.close(code=WSCloseCode.INTERNAL_ERROR, message=error.field.encode()[:100])
                break
            await socket.send_bytes(encode_message(answer, WIRE))
    return socket


class Connection:
    """The state of one connection."""

    def __init__(self, gate: Gate, session: Session):
        self.gate, self.session = gate, session
        self._total: float | None = None  # milliseconds of the last answer

    async def answer(self, data: bytes) -> dict[str, Any]:
        """Return the answer to an observation. Raises MuvlaError for one that is refused."""
        started = time.perf_counter()
        content = decode_message(data, WIRE)
        if not isinstance(content, dict):
            raise _refused("message", f"a {type(content).__name__}", "a map", "send an observation")
        observed, step = self._observed(content), self.gate.number("step", content.get("step"))
        if self._begins(content):
            await self.gate.sessions.begin(self.session, self.gate.seed(content.get("episode_seed")))
        answer = await self.gate.act(WIRE, self.session, observed, step=step)
        timing = {"infer_ms": answer.seconds * 1000}
        if self._total is not None:
            timing["prev_total_ms"] = self._total
        self._total = (time.perf_counter() - started) * 1000
        return {"actions": answer.message, "server_timing": timing}

    def _begins(self, content: dict[str, Any]) -> bool:
        first, start = self.session.slot is None, content.get("episode_start")
        if start is not None:
            if not isinstance(start, bool | np.bool_):
                raise _refused("episode_start", start, "true or false", "send episode_start=True at an episode's start")
            return bool(start)
        carries = self.gate.sessions.slots.recurrent or self.gate.sessions.regime.carries
        if carries and not self.gate.one_episode and first:
            raise _refused(
                "episode_start",
                None,
                "true at an episode's first frame: this policy has a memory, and the wire has no message for a start",
                "send episode_start with every observation, or start the server with --one-episode-per-connection",
            )
        return first

    def _observed(self, content: dict[str, Any]) -> Observed:
        images = content.get("images")
        if not isinstance(images, dict):
            images = {name: value for name, value in content.items() if _is_image(value)}
        state = next((content[name] for name in STATES if name in content), None)
        return self.gate.sessions.slots.needs.check(images, state, content.get("prompt"))


def _is_image(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 3 and value.shape[-1] == 3


def _refused(field: str, got: Any, expected: str, remedy: str) -> Refused:
    return Refused(field, got=got, expected=expected, remedy=remedy)
