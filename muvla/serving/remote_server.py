"""A policy server of another process: which wire it speaks, what it says of itself, and its identity."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import numpy as np

from muvla.config.serialization import content_hash
from muvla.errors import MuvlaError
from muvla.serving.clients import WIRES, Wire
from muvla.serving.refusal import BrokenAnswer

SCHEMES = {"ws": "websocket", "wss": "websocket", "http": "http", "https": "http"}
CAMERAS = ("image", "wrist_image")  # names of openpi's examples; further cameras get numbers


def is_address(name: str) -> bool:
    """True for the address of a policy server."""
    return name.partition("://")[0] in SCHEMES and "://" in name


@dataclass(frozen=True)
class RemoteServer:
    """A server that answered.

    Attributes:
        url: its address.
        wire: a name of WIRES.
        facts: its metadata and configuration, as plain data.
        name: the user's name of the server, for a server that says nothing of itself.
        key: access key, or None.
        timeout: seconds that an answer may take.
        cameras: names of the cameras that the server expects; empty for `CAMERAS`.
    """

    url: str
    wire: str
    facts: dict[str, Any]
    name: str | None = None
    key: str | None = None
    timeout: float = 30.0
    cameras: tuple[str, ...] = ()

    @property
    def identity(self) -> dict[str, Any]:
        """The facts that the id of the policy is the hash of. The address is left out."""
        named = {"name": self.name} if self.name else {}
        cameras = {"cameras": list(self.cameras)} if self.cameras else {}
        return {"wire": self.wire} | self.facts | named | cameras

    @property
    def train(self) -> str:
        """The id of the server's policy, in the place of a train id."""
        return content_hash(self.identity)

    @property
    def sessions(self) -> int | None:
        """How many episodes the server plays side by side; None where nobody says."""
        config = self.config
        if self.wire == "http" and not config:
            return 1  # MemoryVLA's deployment has one memory for all clients
        return config.get("slots") if isinstance(config.get("slots"), int) else None

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of a server of muvla; empty for another server."""
        for part in (self.facts.get("config"), self.facts.get("metadata")):
            if isinstance(part, dict) and part.get("server") == "muvla":
                return part
        return {}

    def connection(self) -> Wire:
        """A new connection, not open yet."""
        return WIRES[self.wire](self.url, self.key)

    def camera_names(self, count: int) -> tuple[str, ...]:
        """The names of `count` cameras. Raises MuvlaError if the user named fewer."""
        if self.cameras and len(self.cameras) < count:
            raise MuvlaError(
                "--camera",
                got=f"{len(self.cameras)} names",
                expected=f"{count}, one for each camera of the environment",
                remedy="repeat --camera for every camera",
            )
        return (self.cameras or (*CAMERAS, *(f"image_{i}" for i in range(2, count))))[:count]


def find_server(
    url: str,
    key: str | None = None,
    name: str | None = None,
    timeout: float = 30.0,
    cameras: tuple[str, ...] = (),
) -> RemoteServer:
    """Connect to a server once.

    A websocket server that answers `GET /health` speaks vla-eval. One that answers `GET /healthz` alone, or whose
    address ends with `/openpi`, speaks openpi.

    Args:
        url: ws://HOST:PORT or http://HOST:PORT.
        key: access key, or None.
        name: the user's name of the server; required where the server says nothing of itself.
        timeout: seconds that an answer may take.
        cameras: names of the cameras that the server expects.

    Raises:
        MuvlaError: no server answers, or nothing identifies its policy.
    """
    try:
        return asyncio.run(asyncio.wait_for(_find(url, key, name, timeout, cameras), timeout))
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        if isinstance(error, MuvlaError) and not isinstance(error, BrokenAnswer):
            raise
        text = f"no answer in {timeout:g} seconds" if isinstance(error, TimeoutError) else f"no server ({error})"
        raise MuvlaError(
            "RUN",
            got=f"{url}: {text}",
            expected="a policy server that speaks vla-eval, openpi or /process_frame",
            remedy="start the server first, for example with `muvla serve`",
        ) from None


async def _find(url: str, key: str | None, name: str | None, timeout: float, cameras: tuple[str, ...]) -> RemoteServer:
    wire = await _wire_of(url)
    connection = WIRES[wire](url, key)
    try:
        facts = _plain(await connection.connect())
    finally:
        await connection.close()
    if not any(facts.values()) and not name:
        raise MuvlaError(
            "--server-name",
            got=None,
            expected="a name: this server says nothing of itself, and nothing else tells its policies apart",
            remedy="name the policy and its checkpoint, for example --server-name memoryvla-bridge-50k",
        )
    return RemoteServer(url, wire, facts, name, key, timeout, cameras)


async def _wire_of(url: str) -> str:
    parts = urlsplit(url)
    if SCHEMES[parts.scheme] == "http":
        return "http"
    for wire in ("openpi", "vla-eval"):
        if parts.path.rstrip("/") == f"/{wire}":
            return wire
    async with aiohttp.ClientSession() as client:
        base = "https" if parts.scheme == "wss" else "http"
        async with client.get(urlunsplit((base, parts.netloc, "/health", "", ""))) as reply:
            return "vla-eval" if reply.status == 200 and "json" in reply.content_type else "openpi"


def _plain(value: Any) -> Any:
    """Plain data: NumPy's arrays and scalars as lists and numbers, bytes as text."""
    if isinstance(value, dict):
        return {_text(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return _text(value) if isinstance(value, bytes) else value


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


class Connections:
    """Connections to one server in a thread of their own, so that they live while environments step."""

    def __init__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="policy server", daemon=True)
        self._thread.start()

    def run(self, make: Callable[[], Any]) -> Any:
        """Run a coroutine function in the thread, and return its result."""

        async def call():
            return await make()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
