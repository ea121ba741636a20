"""Thousands of broken messages on every wire: each gets one answer that is no crash, and other sessions do not notice.

`MUVLA_FUZZ_MESSAGES` changes the number of messages per wire of the heavy test.
"""

import asyncio
import os
import random

import aiohttp
import numpy as np
import pytest

from helpers.serving import HashSlots, alone, frame, running
from helpers.serving_fuzz import form_body, openpi_message, vla_eval_message
from helpers.wires import VlaEvalClient
from muvla.serving.codec import decode_message
from muvla.serving.pictures import encode_png
from muvla.serving.sessions import Limits

# aiohttp warns of broken headers with their bytes, which are no text that a test process could send to another.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

MESSAGES = int(os.environ.get("MUVLA_FUZZ_MESSAGES", "10000"))


async def bystander(port, done):
    """An ordinary session beside the fuzz: every answer is that of an episode alone."""
    answered = 0
    async with VlaEvalClient(port) as wire:
        while not done.is_set():
            await wire.begin(answered)
            frames = [frame(answered + i) for i in range(5)]
            got = [await wire.act(observed) for observed in frames]
            assert np.array_equal(got, alone(frames, seed=answered))
            answered += 5
            await asyncio.sleep(0.001)
    return answered


async def fuzz_socket(port, path, make, count, seed):
    """Send messages; after an end of the connection, connect again. Return how often which answer came."""
    rng, answers = random.Random(seed), {"answered": 0, "refused": 0, "closed": 0}
    async with aiohttp.ClientSession() as client:
        socket = None
        for number in range(count):
            if socket is None or socket.closed:
                socket = await client.ws_connect(f"http://127.0.0.1:{port}{path}", max_msg_size=0)
                if path == "/openpi":
                    await socket.receive()
            if rng.random() < 0.01:
                await socket.close()  # a client that dies
                continue
            await socket.send_bytes(make(rng))
            try:
                reply = await socket.receive(timeout=0.05 if path == "/vla-eval" else 10)
            except TimeoutError:  # vla-eval does not answer starts and ends
                continue
            if reply.type is aiohttp.WSMsgType.BINARY:
                content = decode_message(reply.data, path[1:])
                answers["refused" if content.get("type") == "error" else "answered"] += 1
            elif reply.type is aiohttp.WSMsgType.TEXT:
                assert "Traceback" not in reply.data and "Remedy" in reply.data, number
                answers["refused"] += 1
                socket = None  # openpi's wire closes after an error
            else:
                answers["closed"] += 1
                socket = None
    return answers


async def fuzz_http(port, count, seed):
    rng, statuses = random.Random(seed), {}
    picture = encode_png(frame(0).images[0])
    async with aiohttp.ClientSession() as client:
        for _ in range(count):
            body, headers = form_body(rng, picture)
            async with client.post(f"http://127.0.0.1:{port}/process_frame", data=body, headers=headers) as reply:
                text = await reply.text()
                statuses[reply.status] = statuses.get(reply.status, 0) + 1
                assert reply.status in (200, 400, 409), (reply.status, text)
                assert reply.status == 200 or '"error"' in text
    return statuses


def fuzz(wire, count, seed=0):
    async def run(port):
        done = asyncio.Event()
        beside = asyncio.create_task(bystander(port, done))
        if wire == "http":
            answers = await fuzz_http(port, count, seed)
        else:
            make = {"vla-eval": vla_eval_message, "openpi": openpi_message}[wire]
            answers = await fuzz_socket(port, f"/{wire}", make, count, seed)
        done.set()
        return answers, await beside

    with running(HashSlots(), limits=Limits(window=0, rate=1e6)) as server:
        answers, beside = asyncio.run(run(server.port))
        crashes = server.gate.sessions.metrics.refusals[500]
    print(f"{wire}: {count} messages, {answers}, {beside} answers of the session beside them")
    return answers, beside, crashes


@pytest.mark.parametrize("wire", ["vla-eval", "openpi", "http"])
def test_a_few_hundred_broken_messages_disturb_nobody(wire):
    answers, beside, crashes = fuzz(wire, 150)
    assert sum(answers.values()) > 50 and beside > 0 and crashes == 0


@pytest.mark.fuzz
@pytest.mark.parametrize("wire", ["vla-eval", "openpi", "http"])
def test_ten_thousand_broken_messages_disturb_nobody(wire):
    answers, beside, crashes = fuzz(wire, MESSAGES, seed=1)
    assert sum(answers.values()) > MESSAGES / 2 and beside > 0 and crashes == 0
