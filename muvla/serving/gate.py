"""The part that all wires of a server share: the sessions, the configuration, and the access rules."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Any, ClassVar

from aiohttp import web

from muvla.errors import MuvlaError
from muvla.serving.refusal import BROKEN, NO_KEY, Refused
from muvla.serving.sessions import Sessions


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

    def count_refusal(self, error: MuvlaError) -> None:
        self.sessions.metrics.refusals[getattr(error, "status", BROKEN)] += 1


Gate.KEY = web.AppKey("gate", Gate)
