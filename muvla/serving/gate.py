"""The part that all wires of a server share: the sessions, the configuration, and the access rules."""

from __future__ import annotations

import contextlib
import hmac
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from aiohttp import web

from muvla.errors import MuvlaError
from muvla.serving.observation import Observed
from muvla.serving.refusal import BROKEN, NO_KEY, Refused
from muvla.serving.sessions import Answer, Session, Sessions, failed


@dataclass
class Gate:
    """The entrance of a server.

    Attributes:
        sessions: of all wires.
        config: what decides the answers (`/config`).
        access_key: clients must show it; None for a server on this machine alone.
        most_bytes: largest message.
        one_episode: a connection of openpi's wire is one episode.
    """

    KEY: ClassVar[web.AppKey]

    sessions: Sessions
    config: dict[str, Any]
    access_key: str | None = None
    most_bytes: int = 2**24
    one_episode: bool = False
    sockets: set[web.WebSocketResponse] = field(default_factory=set)

    async def accept(self, request: web.Request) -> web.WebSocketResponse:
        """Answer a websocket's handshake."""
        if self.sessions.is_stopping:
            raise web.HTTPServiceUnavailable
        socket = web.WebSocketResponse(max_msg_size=self.most_bytes, compress=False, autoping=True)
        if not socket.can_prepare(request):
            raise web.HTTPUpgradeRequired(text="this path speaks websocket\n")
        await socket.prepare(request)
        self.sockets.add(socket)
        return socket

    @contextlib.asynccontextmanager
    async def connection(self, request: web.Request, wire: str) -> AsyncIterator[tuple[web.WebSocketResponse, Session]]:
        """A websocket whose connection is a session, which ends with the connection."""
        socket = await self.accept(request)
        session = self.sessions.open(f"{wire} {uuid.uuid4()}")
        try:
            yield socket, session
        except ConnectionResetError:
            pass  # the client left before its answer
        finally:
            self.sessions.close(session)

    async def act(
        self, wire: str, session: Session, observed: Observed, sequence: int | None = None, step: int | None = None
    ) -> Answer:
        """`Sessions.act`, counted as an answered request of a wire."""
        answer = await self.sessions.act(session, observed, sequence, step)
        self.sessions.metrics.requests[wire] += 1
        return answer

    def in_shape(self, actions: np.ndarray) -> np.ndarray:
        """The actions (n, A) as a wire of single actions answers: (A,), and (n, A) under the regime `chunk`."""
        return actions if self.sessions.regime.name == "chunk" else actions[0]

    def refuse(self, fault: Exception) -> MuvlaError:
        """The error that a client gets for an exception, counted. A fault of the server becomes an error 500."""
        error = fault if isinstance(fault, MuvlaError) else failed(fault)
        self.sessions.metrics.refusals[getattr(error, "status", BROKEN)] += 1
        return error

    def require_access(self, request: web.Request) -> None:
        """Raises Refused for a request of a web page, or without the access key."""
        if "Origin" in request.headers:
            raise Refused(
                "Origin",
                got="a request of a web page",
                expected="a robot's or a benchmark's client",
                remedy="call the server from a program",
                status=403,
            )
        if self.access_key is None:
            return
        shown = request.headers.get("Authorization", "").partition(" ")[2] or request.query.get("key", "")
        if not hmac.compare_digest(shown.encode(), self.access_key.encode()):
            raise Refused(
                "Authorization",
                got="a wrong access key" if shown else None,
                expected="the server's access key",
                remedy="send `Authorization: Api-Key KEY`, or add ?key=KEY to the address",
                status=NO_KEY,
            )

    def seed(self, value: Any) -> int:
        """The seed that a client names; 0 if it names none. Raises Refused for no seed."""
        return self.number("seed", value) or 0

    def number(self, name: str, value: Any) -> int | None:
        """A number that a client may leave out. Raises Refused for anything but a whole number below 2^32."""
        if value is not None and (type(value) is not int or not 0 <= value < 2**32):
            expected, remedy = "a whole number below 2^32", f"send a {name}, or leave it out"
            raise Refused(name, got=value, expected=expected, remedy=remedy)
        return value


Gate.KEY = web.AppKey("gate", Gate)
