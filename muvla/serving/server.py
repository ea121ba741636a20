"""One process that serves one policy on all wires.

| path | wire |
|---|---|
| `/vla-eval` | vla-eval's websocket |
| `/openpi` | openpi's websocket |
| `/` | the websocket of `--root` |
| `POST /process_frame` | MemoryVLA's deployment |
| `/health`, `/healthz` | 200 while the server answers |
| `/config` | what decides the answers |
| `/metrics` | Prometheus' text format |
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
from collections.abc import Awaitable, Callable

from aiohttp import WSCloseCode, web

from muvla.errors import MuvlaError
from muvla.serving import openpi, process_frame, vla_eval
from muvla.serving.gate import Gate
from muvla.serving.refusal import BROKEN

ROOTS = {vla_eval.WIRE: vla_eval.handle, openpi.WIRE: openpi.handle}
OPEN = ("/health", "/healthz")  # need no access key
STOP_SECONDS = 5.0


class Server:
    """A running server.

    Args:
        gate: the sessions, and who may come in.
        host: address to listen on.
        port: 0 takes a free one.
        root: the wire of the websocket at `/`.

    Raises:
        MuvlaError: an address beyond this machine without an access key.
    """

    def __init__(self, gate: Gate, host: str = "127.0.0.1", port: int = 8000, root: str = vla_eval.WIRE):
        if not is_loopback(host) and not gate.access_key:
            raise MuvlaError(
                "--access-key",
                got=f"None with --host {host}",
                expected="an access key for an address beyond this machine",
                remedy="set MUVLA_ACCESS_KEY to a long random text, or leave --host out",
            )
        self.gate, self.host, self.port, self.root = gate, host, port, root
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen. Raises MuvlaError if the port is in use, or if the address is none of this machine."""
        self.gate.sessions.start()
        self._runner = web.AppRunner(build_app(self.gate, self.root), access_log=None, shutdown_timeout=STOP_SECONDS)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port)
        try:
            await site.start()
        except OSError as error:
            await self.stop()
            raise _not_listening(self.host, self.port, error) from None
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Answer what has arrived, close the connections, and stop."""
        await self.gate.sessions.stop()
        for socket in list(self.gate.sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY, message=b"the server stops")
        await self._runner.cleanup()

    async def run(self, until: Callable[[], bool]) -> None:
        """Serve until `until` returns True."""
        try:
            while not until():
                await asyncio.sleep(0.1)
        finally:
            await self.stop()


def build_app(gate: Gate, root: str = vla_eval.WIRE) -> web.Application:
    """The application of all wires."""
    app = web.Application(client_max_size=gate.most_bytes, middlewares=[_guard])
    app[Gate.KEY] = gate
    app.router.add_get("/", ROOTS[root])
    for wire, handle in ROOTS.items():
        app.router.add_get(f"/{wire}", handle)
    app.router.add_post("/process_frame", process_frame.handle)
    for path in OPEN:
        app.router.add_get(path, _health)
    app.router.add_get("/config", _config)
    app.router.add_get("/metrics", _metrics)
    return app


def is_loopback(host: str) -> bool:
    """True for an address that only this machine reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@web.middleware
async def _guard(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse strangers; turn errors into an answer that names the field."""
    gate = request.app[Gate.KEY]
    try:
        if request.path not in OPEN:
            gate.require_access(request)
        return await handler(request)
    except web.HTTPException as error:
        return web.json_response({"error": error.reason}, status=error.status, headers=_allowed(error))
    except ConnectionResetError:
        raise  # the client left
    except Exception as fault:
        error = gate.refuse(fault)
        return web.json_response({"error": str(error), "field": error.field}, status=getattr(error, "status", BROKEN))
    finally:
        gate.sockets = {socket for socket in gate.sockets if not socket.closed}


def _allowed(error: web.HTTPException) -> dict[str, str]:
    return {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}


async def _health(request: web.Request) -> web.Response:
    stopping = request.app[Gate.KEY].sessions.is_stopping
    return web.json_response({"status": "stopping" if stopping else "ok"}, status=503 if stopping else 200)


async def _config(request: web.Request) -> web.Response:
    return web.json_response({"applied": {}, "config": request.app[Gate.KEY].config})


async def _metrics(request: web.Request) -> web.Response:
    return web.Response(text=request.app[Gate.KEY].sessions.metrics.text())


def _not_listening(host: str, port: int, error: OSError) -> MuvlaError:
    if error.errno == errno.EADDRINUSE:
        remedy = "stop the other server, or choose another --port"
        return MuvlaError("--port", got=f"{port}, which is in use", expected="a free port", remedy=remedy)
    if error.errno == errno.EACCES:
        return MuvlaError("--port", got=port, expected="a port that you may open", remedy="choose --port 1024 or more")
    remedy = "use 127.0.0.1, or an address that `ip address` lists"
    return MuvlaError("--host", got=host, expected="an address of this machine", remedy=remedy)
