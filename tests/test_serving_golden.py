"""MemoryVLA's deployment server, request by request: the same answers where they are right, and named differences."""

import asyncio
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from helpers.serving import running
from muvla.errors import MuvlaError
from muvla.serving.gripper import Gripper
from muvla.serving.observation import Needs
from muvla.serving.regime import Regime
from muvla.serving.sessions import Sessions
from muvla.serving.slots import Slots

GOLDEN = Path(os.environ.get("MUVLA_TEST_DATA", "/missing")) / "golden" / "memoryvla"
pytestmark = pytest.mark.skipif(not GOLDEN.exists(), reason="MUVLA_TEST_DATA is not set")

# The newer server sets a threshold for the gripper before all else, the older one behind its ensemble alone.
REGIMES = {
    (version, mode): replace(regime, gripper=Gripper("binary" if version == "new" else "raw"))
    for version in ("new", "old")
    for mode, regime in {
        "single": Regime(),
        "ensemble": Regime("ensemble", horizon=2),
        "ensemble_h7": Regime("ensemble", horizon=7),
        "chunk8": Regime("chunk", h=8),
    }.items()
}
# Options with which theirs starts and ours does not. The requests go to a server that answers with the whole chunk.
REFUSED_OPTIONS = {
    "chunk_nowindow": ("chunk",),
    "chunk20": ("chunk", 20),
}
REGIMES |= {(version, mode): Regime("chunk", h=16) for version in ("new", "old") for mode in REFUSED_OPTIONS}
FRAMES = (
    *("frame 1 of an episode", "frame 2", "frame 3, JPEG", "frame 4, landscape 320x240", "frame 5, portrait 240x320"),
    *("frame 6, with wrist image", "frame 7, grey-scale image", "frame 8, RGBA image", "new episode, frame 1"),
    *("new episode, frame 2", "empty text", "frame after the errors"),
)
# Row of the table in docs/serving.md → the cases, their status, our status, and where: every mode, or the modes named.
DIFFERENCES = {
    "`episode_first_frame` is `true` or `1`": (("flag true (lower case)", "flag 1"), 500, 400, ()),
    "`image` is no picture": (("not an image",), 500, 400, ()),
    "the policy fails": (("policy raises",), 500, 500, ()),
    "wrong method": (("GET",), 405, 405, ()),
    "`GET /health`": (("other route",), 404, 200, ()),
    "chunk mode without a window, or a window beyond the chunk": (FRAMES, 500, 200, tuple(REFUSED_OPTIONS)),
}
BODIES = {  # of answers whose body is a page there and JSON here
    "flag true (lower case)": "episode_first_frame",
    "flag 1": "episode_first_frame",
    "not an image": "image",
    "policy raises": "policy",
}


def different(mode, case):
    """Their status and ours, where they differ in the status or in the body; None for an answer that is equal."""
    for cases, theirs, ours, modes in DIFFERENCES.values():
        if case in cases and (not modes or mode in modes):
            return theirs, ours
    return None


class ChunkSlots(Slots):
    """The golden policy: its n-th call that succeeds returns chunk n. It keeps what it received."""

    count, chunk, recurrent = 1, 16, True
    needs = Needs(cameras=1, proprio=0, reads_proprio=False)

    def __init__(self, chunks):
        self.chunks, self.calls, self.received, self.starts = chunks, 0, [], []

    def config(self):
        return {}

    def start(self, slot, seed):
        self.starts.append(len(self.received))

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
    with running(slots, REGIMES[version, mode]) as server:
        got = asyncio.run(replies(server.port, run["records"], pictures(arrays)))
    return run["records"], got, slots


def recorded(record, version):
    """The numbers of a recorded answer. The older server writes them as one text."""
    response = record["json"]["response"]
    if version == "new":
        return response
    actions = [[float(number) for number in action.split()] for action in response.split(";")]
    return actions if ";" in response else actions[0]


@pytest.mark.parametrize(("version", "mode"), REGIMES)
def test_every_request_is_answered_as_recorded_or_differs_for_a_named_reason(golden, version, mode):
    records, got, slots = answers(golden, version, mode)
    assert len(records) == len(got) == 22
    for record, (status, body) in zip(records, got, strict=True):
        case, difference = record["case"], different(mode, record["case"])
        assert (record["status"], status) == (difference or (record["status"], record["status"])), case
        if case in BODIES:
            assert body["field"] == BODIES[case] and set(body) == {"error", "field"}
        elif difference is None and status == 200:
            ours, theirs, tolerance = np.array(body["response"]), recorded(record, version), 0
            if "ensemble" in mode:  # ours sums in another order
                tolerance, behind = 1e-12, version == "old"
                ours[-1] = ours[-1] >= 0.5 if behind else ours[-1]
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance, err_msg=case)
        elif difference is None:
            assert body == record["json"], case
    reached = [record for record in records if record["policy_calls"]]
    assert [frame.instruction for frame in slots.received] == [record["form"]["text"] for record in reached]
    starts = [i for i, record in enumerate(reached) if record["form"]["episode_first_frame"] == "True"]
    assert slots.starts == starts == [0, 8]


def test_the_page_lists_every_difference():
    page = (Path(__file__).parents[1] / "docs" / "serving.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    reasons = {row[0].removeprefix("| "): row[-1].removesuffix(" |") for row in rows}
    assert all(reasons[name] for name in DIFFERENCES)


@pytest.mark.parametrize("options", REFUSED_OPTIONS.values(), ids=REFUSED_OPTIONS)
def test_a_chunk_without_a_window_and_a_window_beyond_the_chunk_are_refused_before_the_server_starts(golden, options):
    """Theirs answered 500 to every frame, after the memory had advanced."""
    with pytest.raises(MuvlaError) as info:
        Sessions(ChunkSlots(golden[1]["policy_chunks"]), Regime(*options))
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
