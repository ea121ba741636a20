"""Speed of `muvla serve`, and a soak that checks every answer.

python -m benchmarks.serving                  prints the tables and writes benchmarks/serving.md
python -m benchmarks.serving --soak 600       adds the soak's line to benchmarks/serving.jsonl

The policies are untrained, with four memory tokens. Clients and server share one process and its cores.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import random
import resource
import time
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from muvla.checkpoints.build import build_policy
from muvla.config import BudgetConfig, Cell, DataConfig, DatasetConfig, MemoryConfig, ModelConfig, TaskConfig
from muvla.config.sizes import get_size
from muvla.data.normalization import Statistics
from muvla.models.policy import Interface, Policy
from muvla.serving.clients import FrameWire, OpenpiWire, Query, VlaEvalWire, Wire
from muvla.serving.gate import Gate
from muvla.serving.observation import Needs, Observed
from muvla.serving.pictures import decode_picture, encode_png
from muvla.serving.regime import Regime
from muvla.serving.server import Server
from muvla.serving.sessions import Limits, Sessions
from muvla.serving.slots import PolicySlots, Slots
from muvla.utils.io import append_line, write_atomically
from muvla.utils.provenance import CODE_VERSION, hardware_line

HERE = Path(__file__).parent
STATISTICS = Statistics((-1.0, -1.0), (1.0, 1.0), (-1.0, -1.0), (1.0, 1.0), (True, True), "benchmark")
TEXT = "Touch the marked disc."
EPISODES, TICKS = 12, 10  # of the soak
SILENCE = 5.0  # seconds after which the soak's server closes a session
ADDRESSES = (
    (VlaEvalWire, "ws://127.0.0.1:{}/vla-eval"),
    (OpenpiWire, "ws://127.0.0.1:{}/openpi"),
    (FrameWire, "http://127.0.0.1:{}"),
)


def build(size: str) -> Policy:
    """An untrained policy of two cameras, two state numbers and two action numbers."""
    cell = Cell(
        model=ModelConfig(size=get_size(size), chunk=4, reserve=8),
        data=DataConfig(DatasetConfig(task=TaskConfig("RecallPosition3-v0"), episodes=24)),
        memory=MemoryConfig("tokens", 4),
        truncation=8,
        budget=BudgetConfig(slots=4, window=8, updates=4),
    )
    return build_policy(cell, Interface(cameras=2, proprio_dim=2, action_dim=2, text=12, text_padded=True))


class OneByOne(Slots):
    """The same policy without batches: a pass of batch 1 for every frame."""

    def __init__(self, policy: Policy, count: int):
        self.count = count
        self.parts = [PolicySlots(policy, STATISTICS, 1) for _ in range(count)]
        for part in self.parts[1:]:
            part._actor._leak_tested = True  # one test of the policy is enough, and takes as long as a pass
        self.needs, self.chunk, self.recurrent = self.parts[0].needs, self.parts[0].chunk, True

    def config(self) -> dict[str, Any]:
        return {"slots": self.count, "action": 2}

    def start(self, slot: int, seed: int) -> None:
        self.parts[slot].start(0, seed)

    def tick(self, frames, steps):
        return {slot: self.parts[slot].tick({0: frame}, {0: steps[slot]})[0] for slot, frame in frames.items()}


class Nothing(Slots):
    """A policy that takes no time, for the overhead of wires."""

    count, chunk, recurrent = 1, 1, True

    def __init__(self, side: int):
        self.needs = Needs(cameras=1, proprio=2, reads_proprio=True, side=side)

    def config(self) -> dict[str, Any]:
        return {"server": "muvla", "slots": 1, "action": 2}

    def start(self, slot: int, seed: int) -> None:
        pass

    def tick(self, frames, steps):
        return {slot: np.zeros((1, 2), dtype=np.float32) for slot in frames}


def frames_of(seed: int, needs: Needs, side: int, count: int = TICKS) -> list[Observed]:
    """Random frames of one episode.

    Args:
        seed: of the frames.
        needs: of the policy.
        side: height and width of the images.
        count: number of frames.
    """
    rng = np.random.default_rng(seed)
    shape = (needs.cameras, side, side, 3)
    return [
        Observed(rng.integers(0, 256, shape, dtype=np.uint8), rng.uniform(-1, 1, 2).astype(np.float32), TEXT)
        for _ in range(count)
    ]


def percentiles(seconds: list[float]) -> str:
    return " / ".join(f"{1000 * value:.2f}" for value in np.quantile(seconds, (0.5, 0.9, 0.99)))


async def with_sessions(slots: Slots, limits: Limits, body: Callable[[Sessions], Awaitable[Any]]) -> Any:
    sessions = Sessions(slots, Regime(), limits)
    sessions.start()
    try:
        return await body(sessions)
    finally:
        await sessions.stop()


def load(slots: Slots, count: int, requests: int, window: float, side: int) -> tuple[float, list[float]]:
    """Requests a second, and the latencies, of sessions that ask as soon as they are answered.

    Args:
        slots: the policy.
        count: number of sessions.
        requests: of each session.
        window: seconds.
        side: height and width of the images.
    """
    latencies: list[float] = []

    async def episode(sessions: Sessions, number: int) -> None:
        session = sessions.open(str(number))
        await sessions.begin(session)
        frames = frames_of(number, slots.needs, side, 2)
        for i in range(requests):
            started = time.perf_counter()
            await sessions.act(session, frames[i % 2])
            latencies.append(time.perf_counter() - started)

    async def body(sessions: Sessions) -> float:
        started = time.perf_counter()
        await asyncio.gather(*(episode(sessions, number) for number in range(count)))
        return count * requests / (time.perf_counter() - started)

    return asyncio.run(with_sessions(slots, Limits(window=window, rate=1e9), body)), latencies


def batching_table(size: str, counts: tuple[int, ...], requests: int) -> list[str]:
    """Rows: sessions, batched and one by one."""
    policy, side = build(size), get_size(size).image_size
    lines = []
    for count in counts:
        cells = []
        for slots in (PolicySlots(policy, STATISTICS, count), OneByOne(policy, count)):
            load(slots, 1, 1, 0.002, side)  # the leak test and first touches
            rate, latencies = load(slots, count, requests, 0.002, side)
            cells += [f"{rate:.1f}", percentiles(latencies)]
        lines.append(f"| {size} | {count} | {cells[0]} | {cells[1]} | {cells[2]} | {cells[3]} |")
    return lines


def partial_table(sizes: tuple[str, ...], count: int = 8) -> list[str]:
    """Rows: slots and frames of a pass, and the fastest of three passes."""
    lines = []
    for size in sizes:
        policy, side = build(size), get_size(size).image_size
        for slot_count, frame_count in ((1, 1), (count, 1), (count, count)):
            slots = PolicySlots(policy, STATISTICS, slot_count)
            frames = {slot: frames_of(slot, slots.needs, side, 1)[0] for slot in range(frame_count)}
            for slot in range(slot_count):
                slots.start(slot, 0)
            slots.tick(frames, dict.fromkeys(frames, 0))  # the leak test and first touches
            fastest = min(timed(lambda s=slots, f=frames: s.tick(f, dict.fromkeys(f, 1))) for _ in range(3))
            lines.append(f"| {size} | {slot_count} | {frame_count} | {1000 * fastest:.1f} |")
    return lines


def window_table(windows: tuple[float, ...], count: int = 8, requests: int = 20) -> list[str]:
    """Rows: window, latency and batch size, of sessions that pause at random between their requests."""
    policy, side = build("tiny"), get_size("tiny").image_size
    lines = []
    for window in windows:
        slots, latencies = PolicySlots(policy, STATISTICS, count), []

        async def episode(sessions: Sessions, number: int, slots: Slots = slots, latencies=latencies) -> None:
            session, rng = sessions.open(str(number)), random.Random(number)
            await sessions.begin(session)
            frames = frames_of(number, slots.needs, side, 2)
            for i in range(requests):
                await asyncio.sleep(rng.uniform(0, 0.05))
                started = time.perf_counter()
                await sessions.act(session, frames[i % 2])
                latencies.append(time.perf_counter() - started)

        async def body(sessions: Sessions, episode=episode) -> float:
            await asyncio.gather(*(episode(sessions, number) for number in range(count)))
            return float(np.mean(sessions.metrics.batches))

        batch = asyncio.run(with_sessions(slots, Limits(window=window, rate=1e9), body))
        lines.append(f"| {1000 * window:g} | {percentiles(latencies)} | {batch:.1f} |")
    return lines


async def ask_often(port: int, make: type[Wire], path: str, side: int, requests: int) -> tuple[list, list]:
    """Latencies of one client, and the seconds of coding a picture, measured in turns.

    Args:
        port: of the server.
        make: the wire.
        path: address with a place for the port.
        side: height and width of the image.
        requests: number of requests.
    """
    wire = make(path.format(port))
    await wire.connect()
    (observed,) = frames_of(0, Nothing(side).needs, side, 1)
    png, latencies, coding = encode_png(observed.images[0]), [], []
    for step in range(requests):
        query = Query(observed.images, ("image",), observed.proprio, TEXT, step, 0, "benchmark")
        if step == 0:
            await wire.begin(query)
        started = time.perf_counter()
        await wire.ask(query)
        latencies.append(time.perf_counter() - started)
        if make is FrameWire:
            coding.append(timed(lambda: encode_png(observed.images[0])) + timed(lambda: decode_picture(png, "image")))
        else:
            coding.append(0.0)
    await wire.close()
    return latencies[requests // 10 :], coding[requests // 10 :]


def wire_table(side: int, requests: int) -> list[str]:
    """Rows: wire, latency of the bare sessions, latency over the wire, and the codecs of pictures apart."""
    (observed,) = frames_of(0, Nothing(side).needs, side, 1)
    lines = []

    async def run(make: type[Wire], path: str) -> tuple[list[float], list[float], list[float]]:
        slots = Nothing(side)
        gate = Gate(Sessions(slots, Regime(), Limits(window=0, rate=1e9)), slots.config())
        server = Server(gate, port=0)
        await server.start()
        session = gate.sessions.open("bare")
        await gate.sessions.begin(session)
        bare = []
        for _ in range(requests):
            started = time.perf_counter()
            await gate.sessions.act(session, observed)
            bare.append(time.perf_counter() - started)
        gate.sessions.close(session)
        over, coding = await ask_often(server.port, make, path, side, requests)
        await server.stop()
        return bare, over, coding

    for make, path in ADDRESSES:
        bare, over, coding = asyncio.run(run(make, path))
        added = 1000 * (float(np.median(np.subtract(over, coding))) - float(np.median(bare)))
        apart = f"{1000 * float(np.median(coding)):.2f}"
        lines.append(f"| {make.name} | {percentiles(bare)} | {percentiles(over)} | {apart} | {added:.2f} |")
    return lines


def timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def memory_lines() -> list[str]:
    """Bytes of one session: its slot's memory, and its objects."""
    lines = []
    for size in ("tiny", "small"):
        policy = build(size)
        spec = policy.memory.init_state(1)
        carried = sum(leaf.numel() * leaf.element_size() for leaf in spec.values())
        lines.append(f"- {size}: {carried} bytes of memory in a slot")
    sessions = Sessions(Nothing(8), Regime())
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(1000):
        sessions.open(str(number))
    each = (tracemalloc.get_traced_memory()[0] - before) / 1000
    tracemalloc.stop()
    return [*lines, f"- a session without a slot: {each:.0f} bytes of objects"]


# --- the soak ---------------------------------------------------------------------------------------------------------


def references(slots: PolicySlots, side: int) -> list[tuple[list[Observed], list[np.ndarray]]]:
    """Episodes with the answers of a session alone."""
    episodes = []
    for number in range(EPISODES):
        frames = frames_of(number, slots.needs, side)
        slots.start(0, number)
        answers = [slots.tick({0: observed}, {0: step})[0][0] for step, observed in enumerate(frames)]
        episodes.append((frames, answers))
    return episodes


async def client(port: int, number: int, episodes: list, until: float, counts: Counter[str]) -> None:
    """One client that plays episodes, checks every answer, and often leaves in the middle."""
    rng = random.Random(number)
    while time.monotonic() < until:
        make, path = rng.choice(ADDRESSES)
        wire = make(path.format(port))
        await wire.connect()
        for _ in range(rng.randrange(1, 4)):
            chosen = rng.randrange(EPISODES)
            frames, answers = episodes[chosen]
            length = rng.randrange(1, TICKS + 1)
            for step, (observed, answer) in enumerate(zip(frames[:length], answers, strict=False)):
                names = tuple(f"image_{i}" for i in range(len(observed.images)))
                query = Query(observed.images, names, observed.proprio, TEXT, step, chosen, "soak")
                if step == 0:
                    await wire.begin(query)
                got = await wire.ask(query)
                counts["answers"] += 1
                counts[f"over {wire.name}"] += 1
                counts["different"] += not np.array_equal(got[0], answer)
            counts["episodes"] += 1
        if rng.random() < 0.5:
            await die(wire, query, rng)
            counts["disconnects"] += 1
        await wire.close()


async def die(wire: Wire, query: Query, rng: random.Random) -> None:
    """End without a word: no end of the connection, no end of the episode, in half of all cases before the answer."""
    if rng.random() < 0.5:
        question = asyncio.create_task(wire.ask(query))
        await asyncio.sleep(rng.uniform(0, 0.05))
        question.cancel()
        await asyncio.gather(question, return_exceptions=True)
    if wire._socket is not None:
        wire._socket._response.close()


def soak(seconds: float, count: int = 64) -> dict[str, Any]:
    """Play at `count` sessions, and return counts and the growth of the process."""
    policy, side = build("tiny"), get_size("tiny").image_size
    slots = PolicySlots(policy, STATISTICS, count, {"server": "muvla"})
    episodes = references(slots, side)
    counts: Counter[str] = Counter(different=0)
    sizes: list[float] = []

    async def run() -> dict[str, Any]:
        gate = Gate(Sessions(slots, Regime(), Limits(silence=SILENCE, rate=1e9)), slots.config())
        server = Server(gate, port=0)
        await server.start()
        until = time.monotonic() + seconds

        async def watch() -> None:
            while time.monotonic() < until:
                sizes.append(resident())
                await asyncio.sleep(seconds / 20)

        await asyncio.gather(watch(), *(client(server.port, n, episodes, until, counts) for n in range(count)))
        await asyncio.sleep(1.5 * SILENCE)  # HTTP has no end of a session but silence
        left = {"sessions": len(gate.sessions.sessions), "slots": count - len(gate.sessions._free)}
        batch = float(np.mean(gate.sessions.metrics.batches))
        latency = percentiles(list(gate.sessions.metrics.latency))
        await server.stop()
        return {"left_open": left, "batch_size": round(batch, 1), "latency_ms_p50_p90_p99": latency}

    state = asyncio.run(run())
    growth = {"mebibytes": [round(size, 1) for size in sizes[:: max(1, len(sizes) // 10)]]}
    return {"soak_seconds": seconds, "sessions": count} | counts | state | growth


def resident() -> float:
    """MiB of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
    return pages * resource.getpagesize() / 2**20


def page(sizes: tuple[tuple[str, tuple[int, ...], int], ...], requests: int) -> str:
    """The page of all tables."""
    rows = [line for size, counts, asked in sizes for line in batching_table(size, counts, asked)]
    lines = [
        "# Serving",
        "",
        f"`python -m benchmarks.serving`, {datetime.date.today()}, code {CODE_VERSION}, {hardware_line()}, "
        f"{torch.get_num_threads()} thread, load average {os.getloadavg()[0]:.0f}. "
        "Latencies in ms are p50 / p90 / p99. Clients and server share the cores.",
        "",
        "## Sessions in batches, and one by one",
        "",
        "Every session asks again as soon as it is answered. The window is 2 ms.",
        "",
        "| size | sessions | requests/s, batched | latency | requests/s, one by one | latency |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        "## A pass with few frames",
        "",
        "A pass computes all of its rows (`--batch`), so that an answer does not depend on the other sessions.",
        "",
        "| size | rows | frames | ms a pass |",
        "|---|---|---|---|",
        *partial_table(tuple(size for size, _, _ in sizes)),
        "",
        "## Overhead of the wires",
        "",
        "The policy takes no time, the window is 0, and an image has 224 × 224 pixels. `added` is the median over the "
        "wire, without the bare sessions and without the coding of pictures.",
        "",
        "| wire | bare sessions | over the wire | coding of PNG | added |",
        "|---|---|---|---|---|",
        *wire_table(224, requests),
        "",
        "## Latency against the window",
        "",
        "Eight sessions of the tiny policy pause up to 50 ms between requests.",
        "",
        "| window in ms | latency | mean batch |",
        "|---|---|---|",
        *window_table((0, 0.001, 0.002, 0.005, 0.01, 0.02)),
        "",
        "## Memory per session",
        "",
        *memory_lines(),
        "",
        "## Soak and fuzz",
        "",
        *recorded_lines(),
        "",
        "GPU: not run.",
    ]
    return "\n".join(lines) + "\n"


def recorded_lines() -> list[str]:
    """The recorded soaks, and fuzz runs of `tests/test_serving_fuzz.py`."""
    file = HERE / "serving.jsonl"
    if not file.exists():
        return ["Not run."]
    return [f"- `{line}`" for line in file.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--soak", type=float, metavar="SECONDS")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.soak:
        result = soak(arguments.soak)
        print(json.dumps(result))
        append_line(HERE / "serving.jsonl", result)
        return
    text = page((("tiny", (1, 8, 32, 64), 6), ("small", (1, 8, 32, 64), 2)), 500)
    print(text)
    write_atomically(HERE / "serving.md", text.encode())


if __name__ == "__main__":
    main()
