"""Draws robot-timeline.png: a robot loop at 10 Hz over a server, with a late answer and a dropped frame.

python docs/images/robot_timeline.py

The times are measured: a loop runs against a server in this process, whose policy sleeps as long as a pass may take.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from muvla.serving.observation import Needs, Observed
from muvla.serving.regime import Regime
from muvla.serving.sessions import Limits, Sessions
from muvla.serving.slots import Slots

PERIOD, STEPS = 0.1, 9
SLOW, DROPPED = 2, 6  # the frame whose pass is slow, and the period whose frame is dropped
SECONDS = {SLOW: 0.14}


class Sleeper(Slots):
    """A policy whose pass takes 40 ms, and once 140."""

    count, chunk, recurrent, needs = 1, 1, True, Needs(1, 1, True)

    def __init__(self):
        self.passes: list[tuple[float, float]] = []

    def config(self):
        return {}

    def start(self, slot, seed):
        pass

    def tick(self, frames, steps):
        started = time.perf_counter()
        time.sleep(SECONDS.get(len(self.passes), 0.04))
        self.passes.append((started, time.perf_counter()))
        return {slot: np.zeros((1, 1), np.float32) for slot in frames}


async def loop(slots: Sleeper) -> tuple[list[float], list[float], list[float]]:
    """Times of the camera's frames, of the frames that were sent, and of the commands."""
    sessions = Sessions(slots, Regime(), Limits(window=0))
    sessions.start()
    session = sessions.open("robot")
    await sessions.begin(session)
    frame = Observed(np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1, np.float32), "")
    zero, shown, sent, moved = time.perf_counter(), [], [], []
    for period in range(STEPS):
        at = zero + period * PERIOD
        if time.perf_counter() > at + 0.01:  # the last answer is late: this frame is never sent
            shown.append(at)
            continue
        await asyncio.sleep(at - time.perf_counter())
        shown.append(time.perf_counter())
        if period == DROPPED:
            continue
        sent.append(time.perf_counter())
        await sessions.act(session, frame)
        moved.append(time.perf_counter())
    await sessions.stop()
    return [[t - zero for t in times] for times in (shown, sent, moved)] + [zero]


def draw(path: Path) -> None:
    slots = Sleeper()
    shown, sent, moved, zero = asyncio.run(loop(slots))
    figure, axes = plt.subplots(figsize=(9, 2.8), layout="constrained")
    rows = {"camera": 3, "frame sent": 2, "forward pass, memory ticks": 1, "command": 0}
    unsent = [t for t in shown if all(abs(t - s) > 0.02 for s in sent)]
    axes.scatter([t * 1000 for t in shown], [3] * len(shown), color="0.3", zorder=3)
    axes.scatter([t * 1000 for t in unsent], [3] * len(unsent), color="white", edgecolor="0.3", zorder=4)
    axes.scatter([t * 1000 for t in sent], [2] * len(sent), color="tab:blue", zorder=3)
    for started, ended in slots.passes:
        axes.barh(1, (ended - started) * 1000, left=(started - zero) * 1000, height=0.5, color="tab:orange")
    axes.scatter([t * 1000 for t in moved], [0] * len(moved), color="tab:green", zorder=3)
    for s, m in zip(sent, moved, strict=True):
        axes.plot([s * 1000, m * 1000], [2, 0], color="0.8", linewidth=1, zorder=1)
    holds = [(a, b) for a, b in itertools.pairwise(moved) if b - a > 1.4 * PERIOD]
    for a, b in holds:
        axes.axvspan(a * 1000 + 100, b * 1000, color="tab:red", alpha=0.08)
        axes.text((a * 1000 + 100 + b * 1000) / 2, 0.35, "holds", ha="center", fontsize=8, color="tab:red")
    axes.set_yticks(list(rows.values()), list(rows))
    axes.set_xticks(range(0, int(STEPS * PERIOD * 1000) + 1, 100))
    axes.set_xlabel("time in ms; hollow: a frame that was not sent")
    axes.set_ylim(-0.6, 3.6)
    axes.grid(axis="x", color="0.9")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    draw(Path(__file__).with_name("robot-timeline.png"))
