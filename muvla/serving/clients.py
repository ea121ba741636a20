"""The client side of each wire: one connection to a policy server, for one episode after the other.

Legend: V cameras, h×w image, Q proprio dim, A action dim.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import numpy as np

import muvla
from muvla.errors import MuvlaError
from muvla.serving.codec import Dialect, decode_message, encode_message
from muvla.serving.pictures import encode_png
from muvla.serving.refusal import BrokenAnswer
from muvla.utils.foreign import parse_json

LARGEST_ANSWER = 2**26  # bytes
CLOSING = aiohttp.ClientWSTimeout(ws_close=1.0)  # seconds that a server has to answer the end of a connection


@dataclass(frozen=True)
class Query:
    """One frame of an episode, for any wire."""

    images: np.ndarray  # (V, h, w, 3) uint8
    cameras: tuple[str, ...]  # V names
    proprio: np.ndarray  # (Q,) float32
    instruction: str
    step: int  # environment step
    seed: int  # of the episode
    task: str

    @property
    def named(self) -> dict[str, np.ndarray]:
        return dict(zip(self.cameras, self.images, strict=True))


class Wire(ABC):
    """One connection.

    Args:
        url: of the server.
        key: access key, or None.
    """

    name: str
    shares_memory = False  # True for a server that may have one memory for all clients

    def __init__(self, url: str, key: str | None = None):
        self.url, self.key = url, key
        self.is_ours = False  # a server of muvla takes more than its wire says
        self.client: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    async def connect(self) -> dict[str, Any]:
        """Open the connection, and return what the server says about itself: metadata and configuration."""
        headers = {"Authorization": f"Api-Key {self.key}"} if self.key else {}
        self.client = aiohttp.ClientSession(headers=headers)
        facts = await self._open()
        self.is_ours = any(isinstance(part, dict) and part.get("server") == "muvla" for part in facts.values())
        return facts

    @abstractmethod
    async def _open(self) -> dict[str, Any]:
        """Open the connection, and return its facts."""

    @abstractmethod
    async def begin(self, query: Query) -> None:
        """Begin the episode of this first frame."""

    @abstractmethod
    async def ask(self, query: Query) -> np.ndarray:
        """Return the server's actions (n, A). Raises BrokenAnswer for anything else."""

    async def end(self) -> None:  # noqa: B027 (most wires have no message for an episode's end)
        """Say that the episode has ended."""

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()
        if self.client is not None:
            await self.client.close()


async def read_config(client: aiohttp.ClientSession, url: str) -> Any:
    """The server's `/config`; None for a server without one."""
    parts = urlsplit(url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    async with client.get(urlunsplit((scheme, parts.netloc, "/config", parts.query, ""))) as reply:
        if reply.status == 404:
            return None
        text = await reply.text()
        if reply.status != 200:
            raise _broken("/config", f"status {reply.status}: {text[:200]}", "status 200")
        return parse_json(text, "/config").get("config")


class VlaEvalWire(Wire):
    """vla-eval's websocket, protocol 1."""

    name = "vla-eval"

    async def _open(self) -> dict[str, Any]:
        config = await read_config(self.client, self.url)
        self._socket = await self.client.ws_connect(self.url, max_msg_size=LARGEST_ANSWER, timeout=CLOSING)
        self._numbers = itertools.count(1)
        number = await self._send("hello", {"harness_version": f"muvla {muvla.__version__}", "protocol_version": 1})
        reply = await self._receive(number)
        if reply["type"] != "hello":
            raise _broken("hello", reply["payload"], "a message of type hello")
        return {"metadata": reply["payload"], "config": config}

    async def begin(self, query: Query) -> None:
        await self._send("episode_start", {"task": {"name": query.task, "seed": query.seed}})

    async def ask(self, query: Query) -> np.ndarray:
        payload = {"images": query.named, "task_description": query.instruction, "state": query.proprio}
        payload |= {"step": query.step} if self.is_ours else {"states": query.proprio}
        reply = await self._receive(await self._send("observation", payload))
        if reply["type"] != "action":
            raise _broken("action", reply["payload"], "a message of type action")
        return require_actions(reply["payload"])

    async def end(self) -> None:
        await self._send("episode_end", {})

    async def _send(self, name: str, payload: dict[str, Any]) -> int:
        number = next(self._numbers)
        message = {"type": name, "payload": payload, "seq": number, "timestamp": asyncio.get_running_loop().time()}
        await self._socket.send_bytes(encode_message(message, "vla-eval"))
        return number

    async def _receive(self, number: int) -> dict[str, Any]:
        """The answer to this number. Answers to earlier numbers come late, and are dropped."""
        while True:
            message = await receive(self._socket, "vla-eval")
            if not isinstance(message, dict) or not {"type", "payload", "seq"} <= message.keys():
                raise _broken("message", f"a {type(message).__name__}", "a map of type, payload, seq and timestamp")
            if type(message["seq"]) is not int or message["seq"] >= number:
                return message


class OpenpiWire(Wire):
    """openpi's websocket. A server that is not ours gets a connection for every episode."""

    name = "openpi"

    async def _open(self) -> dict[str, Any]:
        self._begins = False
        return {"metadata": await self._connect(), "config": None}

    async def _connect(self) -> Any:
        self._socket = await self.client.ws_connect(self.url, max_msg_size=LARGEST_ANSWER, timeout=CLOSING)
        self._is_fresh = True
        return await receive(self._socket, "openpi")

    async def begin(self, query: Query) -> None:
        self._begins = True
        if not self.is_ours and not self._is_fresh:
            await self._socket.close()
            await self._connect()

    async def ask(self, query: Query) -> np.ndarray:
        content = {f"observation/{name}": image for name, image in query.named.items()}
        content |= {"observation/state": query.proprio, "prompt": query.instruction}
        if self.is_ours:
            content |= {"episode_start": self._begins, "episode_seed": query.seed, "step": query.step}
        self._begins = self._is_fresh = False
        await self._socket.send_bytes(encode_message(content, "openpi"))
        return require_actions(await receive(self._socket, "openpi"))


class FrameWire(Wire):
    """`POST /process_frame` of MemoryVLA's deployment."""

    name = "http"

    async def _open(self) -> dict[str, Any]:
        self._session, self._numbers, self._begins = str(uuid.uuid4()), itertools.count(1), False
        parts = urlsplit(self.url)
        path = parts.path if parts.path not in ("", "/") else "/process_frame"
        self._address = urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
        config = await read_config(self.client, self.url)
        self.shares_memory = config is None
        return {"metadata": None, "config": config}

    async def begin(self, query: Query) -> None:
        self._begins = True

    async def ask(self, query: Query) -> np.ndarray:
        form = aiohttp.FormData()
        for name, image in zip(("image", "image_wrist"), query.images, strict=False):
            form.add_field(name, encode_png(image), filename=f"{name}.png", content_type="image/png")
        form.add_field("text", query.instruction)
        form.add_field("episode_first_frame", str(self._begins))
        headers = {}
        if self.is_ours:
            form.add_field("proprio", json.dumps(query.proprio.tolist()))
            headers = {"Session": self._session, "Sequence": next(self._numbers), "Seed": query.seed}
            headers = {f"X-Muvla-{name}": str(value) for name, value in headers.items() | {("Step", query.step)}}
        async with self.client.post(self._address, data=form, headers=headers) as reply:
            text = await reply.text()
            if reply.status != 200:
                raise _broken("response", f"status {reply.status}: {text[:300]}", "status 200")
        self._begins = False
        content = parse_json(text, "response")
        return require_actions({"actions": content.get("response") if isinstance(content, dict) else None})


WIRES: dict[str, type[Wire]] = {wire.name: wire for wire in (VlaEvalWire, OpenpiWire, FrameWire)}


async def receive(socket: aiohttp.ClientWebSocketResponse, dialect: Dialect) -> Any:
    """The next message of a websocket. Raises BrokenAnswer for a text, an end, or a broken message."""
    message = await socket.receive()
    if message.type is aiohttp.WSMsgType.TEXT:
        raise _broken("message", f"a text: {message.data[-300:]}", "a binary frame")
    if message.type is not aiohttp.WSMsgType.BINARY:
        raise _broken("connection", f"its end ({socket.close_code})", "an answer")
    try:
        return decode_message(message.data, dialect)
    except MuvlaError as error:
        raise _broken(error.field, error.got, error.expected) from None


def require_actions(content: Any) -> np.ndarray:
    """The actions (n, A) float32 of an answer. Raises BrokenAnswer for anything but finite numbers."""
    actions = content.get("actions") if isinstance(content, dict) else None
    try:
        array = np.asarray(actions)
        numbers = np.atleast_2d(array.astype(np.float32)) if array.dtype.kind in "iuf" else None
    except (ValueError, TypeError, OverflowError):
        numbers = None
    if numbers is None or numbers.ndim != 2 or not numbers.size:
        raise _broken("actions", f"a {type(actions).__name__}", "(A,) or (n, A) numbers")
    if not np.isfinite(numbers).all():
        raise _broken("actions", "NaN or infinity", "finite numbers")
    return numbers


def _broken(field: str, got: Any, expected: str) -> BrokenAnswer:
    remedy = "read the server's log; `--retry-errors` runs the episode again"
    return BrokenAnswer(field, got=got, expected=expected, remedy=remedy)
