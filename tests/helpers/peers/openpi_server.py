"""A server of openpi's wire, with the codec of openpi-client. Runs in openpi-client's environment."""

import asyncio
import http
import sys

import numpy as np
from openpi_client import msgpack_numpy
from websockets.asyncio.server import serve


async def handle(socket):
    await socket.send(msgpack_numpy.packb({"policy": "constant", "bounds": np.array([-1.0, 1.0])}))
    async for message in socket:
        observation = msgpack_numpy.unpackb(message)
        assert observation["prompt"] and observation["observation/image"].dtype == np.uint8
        actions = np.tile(np.array([0.5, -0.25], dtype=np.float32), (4, 1))
        await socket.send(msgpack_numpy.packb({"actions": actions, "server_timing": {"infer_ms": np.float64(0.1)}}))


def health(connection, request):
    return connection.respond(http.HTTPStatus.OK, "OK\n") if request.path == "/healthz" else None


async def main():
    async with serve(handle, "127.0.0.1", int(sys.argv[1]), process_request=health, compression=None, max_size=None):
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
