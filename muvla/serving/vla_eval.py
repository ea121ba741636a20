"""The wire of vla-eval 0.8, protocol 1: a websocket with one map of msgpack per frame.

A connection is a session. `episode_start` begins an episode, and an observation's `seq` is its sequence number. The
protocol has no answer to `episode_start`, so a refused start is answered at the next observation.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiohttp import WSMsgType, web

import muvla
from muvla.errors import MuvlaError
from muvla.serving.codec import decode_message, encode_message
from muvla.serving.gate import Gate
from muvla.serving.observation import Needs, Observed
from muvla.serving.refusal import Refused
from muvla.serving.sessions import Session

WIRE, PROTOCOL = "vla-eval", 1
GRIPPERS = {"closes": "binary_close_positive", "opens": "binary_close_negative"}  # form → vla-eval's name
TYPES = ("hello", "observation", "action", "episode_start", "episode_end", "error")


async def handle(request: web.Request) -> web.WebSocketResponse:
    """One connection."""
    gate: Gate = request.app[Gate.KEY]
    async with gate.connection(request, WIRE) as (socket, session):
        connection = Connection(gate, session)
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                answer = await connection.answer(message.data)
            elif message.type is WSMsgType.TEXT:
                answer = connection.error(0, _refused("message", "a frame of text", "a binary frame"))
            else:
                break
            if answer is not None:
                await socket.send_bytes(encode_message(answer, WIRE))
    return socket


class Connection:
    """The state of one connection."""

    def __init__(self, gate: Gate, session: Session):
        self.gate, self.session = gate, session
        self._refused_start: MuvlaError | None = None

    async def answer(self, data: bytes) -> dict[str, Any] | None:
        """Return the answer to a message; None where the protocol has none."""
        sequence = 0
        try:
            message = await self._read(data)
            sequence = message["seq"]
            if message["type"] == "hello":
                return _message("hello", self._hello(message["payload"]), sequence)
            if message["type"] == "episode_start":
                await self._begin(message["payload"])
            if message["type"] == "episode_end":
                self.gate.sessions.end(self.session)
            if message["type"] == "observation":
                return _message("action", await self._act(message["payload"], sequence), sequence)
            if message["type"] == "action":
                raise _refused("type", "action", "a message of a client")
            return None
        except Exception as fault:  # the connection and the other sessions go on
            return self.error(sequence, fault)

    def error(self, sequence: int, fault: Exception) -> dict[str, Any]:
        error = self.gate.refuse(fault)
        return _message("error", {"error": str(error), "field": error.field}, sequence)

    async def _read(self, data: bytes) -> dict[str, Any]:
        # A picture takes milliseconds to decode: other sessions must not wait for it.
        has_picture = b"__image__" in data
        message = await asyncio.to_thread(decode_message, data, WIRE) if has_picture else decode_message(data, WIRE)
        names = ("type", "payload", "seq", "timestamp")
        if not isinstance(message, dict) or any(name not in message for name in names):
            got = f"the fields {list(message)}" if isinstance(message, dict) else f"a {type(message).__name__}"
            raise _refused("message", got, f"a map of {', '.join(names)}")
        if not isinstance(message["type"], str) or message["type"] not in TYPES:
            raise _refused("type", message["type"], f"one of {', '.join(TYPES)}")
        if type(message["seq"]) is not int or not 0 <= message["seq"] < 2**53:
            raise _refused("seq", message["seq"], "a whole number")
        if not isinstance(message["payload"], dict):
            raise _refused("payload", message["payload"], "a map")
        return message

    def _hello(self, payload: dict[str, Any]) -> dict[str, Any]:
        version = payload.get("protocol_version", PROTOCOL)
        if type(version) is not int or version != PROTOCOL:
            raise _refused("protocol_version", version, f"{PROTOCOL}")
        needs, config = self.gate.sessions.slots.needs, self.gate.config
        observed = {name: _spec(name, 0, "rgb_hwc_uint8") for name in needs.names}
        observed["language"] = _spec("language", 0, "language")
        if needs.reads_proprio:
            observed["state"] = _spec("state", needs.proprio, "raw")
        return {
            "harness_version": f"muvla {muvla.__version__}",
            "protocol_version": PROTOCOL,
            "model_server": "muvla",
            "capabilities": {},
            "action_spec": {
                "actions": _spec("actions", config["action"], "raw"),
                "gripper": _spec("gripper", 1, GRIPPERS.get(self.gate.sessions.regime.gripper.form, "raw")),
            },
            "observation_spec": observed,
            "observation_params": _parameters(needs, config),
            "config": config,
        }

    async def _begin(self, payload: dict[str, Any]) -> None:
        task = payload.get("task") if isinstance(payload.get("task"), dict) else {}
        self._refused_start = None
        try:
            await self.gate.sessions.begin(self.session, self.gate.seed(task.get("seed")))
        except MuvlaError as error:
            self.gate.sessions.end(self.session)  # no frame may enter the episode before
            self._refused_start = error

    async def _act(self, payload: dict[str, Any], sequence: int) -> dict[str, Any]:
        if self._refused_start is not None:
            raise self._refused_start
        step = self.gate.number("step", payload.get("step"))
        answer = await self.gate.act(WIRE, self.session, self._observed(payload), sequence, step)
        return {"actions": self.gate.in_shape(answer.message)}

    def _observed(self, payload: dict[str, Any]) -> Observed:
        images = payload.get("images")
        if images is not None and not isinstance(images, dict):
            raise _refused("images", f"a {type(images).__name__}", "a map from camera to image")
        state = payload.get("state", payload.get("states"))
        return self.gate.sessions.slots.needs.check(images or {}, state, payload.get("task_description"))


def _parameters(needs: Needs, config: dict[str, Any]) -> dict[str, Any]:
    """Parameters for a benchmark of vla-eval, which drops the parameters that the benchmark does not have."""
    parameters = {"send_wrist_image": needs.cameras > 1, "send_state": needs.reads_proprio}
    trained_on = [*config.get("tasks", ()), config.get("statistics_key", "")]
    if needs.reads_proprio and any(name.startswith("libero") for name in trained_on):
        # vla-eval turns a rotation vector to the shorter way round. The demonstrations of LIBERO do not.
        parameters["quat_no_antipodal"] = True
    return parameters


def _message(name: str, payload: dict[str, Any], sequence: int) -> dict[str, Any]:
    return {"type": name, "payload": payload, "seq": sequence, "timestamp": time.time()}


def _spec(name: str, dims: int, form: str) -> dict[str, Any]:
    return {"name": name, "dims": dims, "format": form}


def _refused(field: str, got: Any, expected: str) -> Refused:
    return Refused(field, got=got, expected=expected, remedy="send messages of vla-eval's protocol 1")
