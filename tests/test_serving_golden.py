"""MemoryVLA's deployment server, request by request: the same answers where they are right, and named differences."""

import asyncio
import io
import json
import os
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from helpers.serving import running
from muvla.errors import MuvlaError
from muvla.serving.observation import Needs
from muvla.serving.regime import Regime
from muvla.serving.sessions import Sessions
from muvla.serving.slots import Slots

GOLDEN = Path(os.environ.get("MUVLA_TEST_DATA", "/missing")) / "golden" / "memoryvla"
pytestmark = pytest.mark.skipif(not GOLDEN.exists(), reason="MUVLA_TEST_DATA is not set")

REGIMES = {
    "single": Regime(binary_gripper=True),
    "ensemble": Regime("ensemble", horizon=2, binary_gripper=True),
    "ensemble_h7": Regime("ensemble", horizon=7, binary_gripper=True),
    "chunk8": Regime("chunk", h=8, binary_gripper=True),
}
# Case → (their status, our status, reason). docs/serving.md has the same table.
DIFFERENT = {
    "flag true (lower case)": (500, 400, "a wrong flag is the client's mistake, and its error names the field"),
    "flag 1": (500, 400, "the same"),
    "not an image": (500, 400, "the same"),
    "other route": (404, 200, "/health answers, for every wire"),
}
JSON_ERRORS = ("policy raises", "GET")  # the same status; the body is JSON that names the reason, not a page


class ChunkSlots(Slots):
    """The golden policy: its n-th call that succeeds returns chunk n. It keeps what it received."""

    count, chunk, recurrent = 1, 16, True
    needs = Needs(cameras=1, proprio=0, reads_proprio=False)

    def __init__(self, chunks):
        self.chunks, self.calls, self.received = chunks, 0, []

    def config(self):
        return {}

    def start(self, slot, seed):
        pass

    def tick(self, frames, steps):
        self.received += list(frames.values())
        if frames[0].instruction == "boom":
            return {0: RuntimeError("boom")}
        self.calls += 1
        return {0: self.chunks[self.calls - 1]}


def pictures(arrays):
    def encoded(array, form="PNG"):
        file = io.BytesIO()
        Image.fromarray(array).save(file, format=form)
        return file.getvalue()

    square, wide, high = (arrays[f"resize_image.in.{n}"] for n in ("square256", "landscape320x240", "portrait240x320"))
    return {
        "frame 3, JPEG": encoded(square, "JPEG"),
        "frame 4, landscape 320x240": encoded(wide),
        "frame 5, portrait 240x320": encoded(high),
        "frame 7, grey-scale image": encoded(square[..., 0]),
        "frame 8, RGBA image": encoded(np.dstack([square, square[..., :1]])),
        "not an image": b"no picture",
        "": encoded(square),
    }


async def replies(port, records, files):
    got = []
    async with aiohttp.ClientSession() as client:
        for record in records:
            form = aiohttp.FormData()
            for name, value in record["form"].items():
                form.add_field(name, value)
            for name in record["files"]:
                form.add_field(name, files.get(record["case"], files[""]), filename="f.png")
            data = form if record["method"] == "POST" else None
            url = f"http://127.0.0.1:{port}{record['path']}"
            async with client.request(record["method"], url, data=data) as reply:
                got.append((reply.status, json.loads(await reply.text())))
    return got


@pytest.fixture(scope="module")
def golden():
    records = json.loads((GOLDEN / "h_deploy.json").read_text())
    return records["runs"], load_file(GOLDEN / "h_deploy.safetensors")


def answers(golden, version, mode):
    runs, arrays = golden
    (run,) = [run for run in runs if (run["version"], run["mode"]) == (version, mode)]
    slots = ChunkSlots(arrays["policy_chunks"])
    with running(slots, REGIMES[mode]) as server:
        got = asyncio.run(replies(server.port, run["records"], pictures(arrays)))
    return run["records"], got, slots


@pytest.mark.parametrize("mode", REGIMES)
def test_every_request_is_answered_as_recorded_or_differs_for_a_named_reason(golden, mode):
    records, got, _ = answers(golden, "new", mode)
    assert len(records) == 22
    for record, (status, body) in zip(records, got, strict=True):
        theirs, ours, _ = DIFFERENT.get(record["case"], (record["status"], record["status"], ""))
        assert (record["status"], status) == (theirs, ours), record["case"]
        if record["case"] in DIFFERENT or record["case"] in JSON_ERRORS:
            assert "error" in body or record["path"] == "/health"
        elif status == 200:
            np.testing.assert_allclose(body["response"], record["json"]["response"], rtol=0, atol=1e-12)
        else:
            assert body == record["json"], record["case"]


def test_the_older_version_wrote_the_same_numbers_as_text(golden):
    """Ours answers lists alone; the older clients' text is a named difference. Its gripper was not thresholded."""
    records, got, _ = answers(golden, "old", "single")
    for record, (status, body) in zip(records, got, strict=True):
        if record["status"] == 200:
            theirs = [float(number) for number in record["json"]["response"].split()]
            assert status == 200
            np.testing.assert_allclose(body["response"][:6], theirs[:6], rtol=0, atol=1e-12)


@pytest.mark.parametrize("h", [17, 20])
def test_a_window_beyond_the_chunk_is_refused_before_the_server_starts(golden, h):
    """Theirs answered 500 to every frame, after the memory had advanced."""
    with pytest.raises(MuvlaError) as info:
        Sessions(ChunkSlots(golden[1]["policy_chunks"]), Regime("chunk", h=h))
    assert info.value.field == "--h"


def test_refused_requests_reach_no_memory_and_frames_are_central_squares_in_colour(golden):
    records, got, slots = answers(golden, "new", "single")
    reached = [record["case"] for record, (status, _) in zip(records, got, strict=True) if status == 200][:12]
    shapes = dict(zip([case for case in reached if case != "other route"], slots.received, strict=False))
    assert shapes["frame 4, landscape 320x240"].images.shape == (1, 240, 240, 3)
    assert shapes["frame 5, portrait 240x320"].images.shape == (1, 240, 240, 3)  # theirs: a black bar on the left
    grey = shapes["frame 7, grey-scale image"].images  # theirs reached the policy with one channel
    assert (grey[..., 0] == grey[..., 1]).all() and (grey[..., 0] == grey[..., 2]).all()
    assert shapes["frame 8, RGBA image"].images.shape[-1] == 3
    assert len(slots.received) == 13  # twelve answers, and `boom`
