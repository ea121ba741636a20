"""A client for each wire of `muvla serve`, in a few lines, with one interface."""

from __future__ import annotations

import itertools
import json

import aiohttp

from muvla.serving.codec import decode_message, encode_message
from muvla.serving.pictures import encode_png


class _Client:
    def __init__(self, port, host="127.0.0.1", path=""):
        self.url, self.local = f"http://127.0.0.1:{port}{path}", host

    async def __aenter__(self):
        self.client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=(self.local, 0)))
        await self.connect()
        return self

    async def __aexit__(self, *error):
        await self.client.close()

    async def connect(self):
        pass


class VlaEvalClient(_Client):
    async def connect(self):
        self.socket = await self.client.ws_connect(f"{self.url}/vla-eval", max_msg_size=0)
        self.numbers = itertools.count(1)
        await self.send("hello", {"harness_version": "test", "protocol_version": 1})
        self.hello = (await self.receive())["payload"]

    async def send(self, name, payload):
        message = {"type": name, "payload": payload, "seq": next(self.numbers), "timestamp": 0.0}
        await self.socket.send_bytes(encode_message(message, "vla-eval"))

    async def receive(self):
        return decode_message((await self.socket.receive()).data, "vla-eval")

    async def begin(self, seed):
        await self.send("episode_start", {"task": {"seed": seed}})

    async def ask(self, observed):
        images = {f"camera {i}": image for i, image in enumerate(observed.images)}
        payload = {"images": images, "state": observed.proprio, "task_description": observed.instruction}
        await self.send("observation", payload)
        return await self.receive()

    async def act(self, observed):
        answer = await self.ask(observed)
        assert answer["type"] == "action", answer
        return answer["payload"]["actions"]

    async def refusal(self, observed):
        answer = await self.ask(observed)
        assert answer["type"] == "error", answer
        return answer["payload"]["field"]


class OpenpiClient(_Client):
    is_first = None  # a client that never says so

    async def connect(self):
        self.socket = await self.client.ws_connect(f"{self.url}/openpi", max_msg_size=0)
        self.metadata = decode_message((await self.socket.receive()).data, "openpi")

    async def begin(self, seed):
        self.seed, self.is_first = seed, True

    async def ask(self, observed):
        content = {f"observation/image {i}": image for i, image in enumerate(observed.images)}
        content |= {"observation/state": observed.proprio, "prompt": observed.instruction}
        if self.is_first is not None:
            content |= {"episode_start": self.is_first, "episode_seed": self.seed}
            self.is_first = False
        await self.socket.send_bytes(encode_message(content, "openpi"))
        return (await self.socket.receive()).data

    async def act(self, observed):
        answer = await self.ask(observed)
        assert isinstance(answer, bytes), answer
        return decode_message(answer, "openpi")["actions"][0]

    async def refusal(self, observed):
        answer = await self.ask(observed)
        assert isinstance(answer, str)
        assert (await self.socket.receive()).data == 1011
        return answer


class FrameClient(_Client):
    def __init__(self, port, session=None, **options):
        super().__init__(port, **options)
        self.session, self.sequence, self.is_first, self.seed = session, 0, False, 0

    async def begin(self, seed):
        self.seed, self.is_first = seed, True

    async def post(self, observed, sequence=None):
        form = aiohttp.FormData()
        form.add_field("image", encode_png(observed.images[0]), filename="image.png")
        if len(observed.images) > 1:
            form.add_field("image_wrist", encode_png(observed.images[1]), filename="wrist.png")
        form.add_field("text", observed.instruction)
        form.add_field("episode_first_frame", str(self.is_first))
        form.add_field("proprio", json.dumps(observed.proprio.tolist()))
        headers = {"X-Muvla-Seed": str(self.seed)}
        headers |= {} if self.session is None else {"X-Muvla-Session": self.session}
        headers |= {} if sequence is None else {"X-Muvla-Sequence": str(sequence)}
        async with self.client.post(f"{self.url}/process_frame", data=form, headers=headers) as reply:
            return reply.status, await reply.json()

    async def act(self, observed):
        self.sequence += 1
        status, body = await self.post(observed, self.sequence if self.session else None)
        assert status == 200, body
        self.is_first = False
        return body["response"]

    async def refusal(self, observed):
        status, body = await self.post(observed)
        assert 400 <= status < 500, body
        return body["field"]
