"""Evaluation in the simulator: environments side by side, batched queries, where the time of a step goes.

python -m benchmarks.evaluation      prints the tables and writes benchmarks/evaluation.md (some minutes)

Legend: e an environment's step, q(B) a query of B slots, both in seconds.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from benchmarks.pairs import compare, table
from experiments.mikasa_quick.study import base
from muvla.checkpoints.build import build_policy
from muvla.config import TaskConfig
from muvla.data.normalization import Statistics
from muvla.envs.registry import make_env, open_env
from muvla.envs.workers import WorkerEnv
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.policy_actor import PolicyActor
from muvla.evaluation.protocol import Protocol
from muvla.evaluation.rollout import Rollout
from muvla.models.policy import Interface, Policy
from muvla.utils.io import write_atomically
from muvla.utils.provenance import CODE_VERSION, hardware_line

HERE = Path(__file__).parent
PROTOCOL = get_protocol("mikasa-remember-color3-quick-rh@1")  # two slots, pictures of 64 pixels
CORES = 16  # of the estimate
PARTS = ("render", "physics", "other of the environment", "policy", "transport")


def untrained(cameras: int = 2, proprio: int = 7, action: int = 7) -> tuple[Policy, Statistics]:
    """Random parameters take as long as trained ones; what they do decides nothing here."""
    policy = build_policy(base, Interface(cameras, proprio, action, text=40, text_padded=True)).eval()
    ends = ((-1.0,) * action, (1.0,) * action, (-1.0,) * proprio, (1.0,) * proprio)
    return policy, Statistics(*ends, action_mask=(True,) * action, data="none")


def episodes(
    policy: Policy, statistics: Statistics, one: Protocol, make: Callable[[], gymnasium.Env], rounds: int
) -> tuple[list[list[str]], float]:
    """Episodes per minute: two environments against one, and serving who is ready against waiting for all; and the
    first ratio. The processes have started before, and every side runs the same episodes."""
    seeds = range(one.seed, one.seed + one.episodes)
    # With infinite patience a rollout waits for every environment before it serves any.
    made = [
        Rollout(PolicyActor(policy, statistics, one), make, environments=n, patience=patience)
        for n, patience in ((1, None), (2, None), (2, math.inf))
    ]
    alone, ready, in_step = (lambda rollout=rollout: rollout.run(seeds) for rollout in made)
    try:
        side_by_side = compare(alone, ready, rounds)
        serving = compare(in_step, ready, rounds)
    finally:
        for rollout in made:
            rollout.close()
    lines = [
        ["2 environments against 1", *side_by_side.line(60 * one.episodes, "episodes/min")],
        ["2 environments, who is ready against all at once", *serving.line(60 * one.episodes, "episodes/min")],
    ]
    return lines, float(np.median(side_by_side.speedup))


@torch.no_grad()
def query_seconds(policy: Policy, slots: int, rounds: int, pixels: int) -> float:
    """Of one whole query, vision included."""
    call = _query(policy, slots, pixels)
    call()
    return float(np.median([_timed(call) for _ in range(rounds)]))


@torch.no_grad()
def batching(policy: Policy, rounds: int, pixels: int, slots: int = 8) -> list[list[str]]:
    one, all_of_them = _query(policy, 1, pixels), _query(policy, slots, pixels)
    found = compare(lambda: [one() for _ in range(slots)], all_of_them, rounds)
    return [[f"{slots} slots in one query against {slots} queries", *found.line(slots, "queries/s")]]


def _query(policy: Policy, slots: int, pixels: int) -> Callable[[], Any]:
    own = policy.interface
    images = torch.randint(0, 256, (slots, own.cameras, 3, pixels, pixels), dtype=torch.uint8)
    ids, lengths = policy.encode_text(["Touch the cube of the color shown at first."] * slots)
    proprio, memory = torch.zeros(slots, own.proprio_dim), torch.randn(slots, base.memory.m, base.model.size.width)
    return lambda: policy.step(policy.encode(images, proprio, ids, lengths), memory)


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


class Echo(gymnasium.Env):
    """Does nothing, with an environment's pictures."""

    def __init__(self, cameras: int, pixels: int, proprio: int):
        images = spaces.Box(0, 255, (cameras, pixels, pixels, 3), np.uint8)
        self.observation_space = spaces.Dict(images=images, proprio=spaces.Box(-1, 1, (proprio,)))
        self.made = {"images": np.zeros(images.shape, np.uint8), "proprio": np.zeros(proprio, np.float32)}
        self.info = {"instruction": "Touch the cube.", "phase": 3, "target": 0, "choice": -1, "success": False}

    def reset(self, *, seed=None, options=None):
        return self.made, self.info

    def step(self, action):
        return self.made, 0.0, False, False, self.info


def transport_seconds(cameras: int, pixels: int, proprio: int, steps: int) -> float:
    """What a step takes longer in a process of its own."""
    env = WorkerEnv(partial(Echo, cameras, pixels, proprio))
    try:
        env.reset(seed=0)
        action = np.zeros(proprio, np.float32)
        return float(np.median([_timed(lambda: env.step(action)) - env.seconds for _ in range(steps)]))
    finally:
        env.close()


def step_parts(task: TaskConfig, image_size: int | None, seeds: list[int]) -> dict[str, float]:
    """Mean seconds of a simulator's step in this process: the pictures of the cameras, the physics, and the whole; and
    of the `render()` that the published evaluator does after every step, here outside of it (on CPU physics)."""
    env = make_env(task, image_size)
    simulator, spent = env._base, {"get_obs": 0.0, "render": 0.0, "_step_action": 0.0}

    def watch(name: str, call: Callable) -> None:
        def timed(*arguments, **named):
            answer = []
            spent[name] += _timed(lambda: answer.append(call(*arguments, **named)))
            return answer[0]

        setattr(simulator, name, timed)

    for name in spent:
        watch(name, getattr(simulator, name))
    total, steps, in_resets = 0.0, 0, dict.fromkeys(spent, 0.0)
    for seed in seeds:
        before = dict(spent)
        env.reset(seed=seed)
        in_resets = {name: in_resets[name] + spent[name] - before[name] for name in spent}
        for _ in range(env.step_limit):
            total += _timed(lambda: env.step(np.full(env.action_space.shape, 0.1)))
            steps += 1
            simulator.render()
    env.close()
    of_steps = {name: (spent[name] - in_resets[name]) / steps for name in spent}
    return {
        "render": of_steps["get_obs"],
        "physics": of_steps["_step_action"],
        "step": total / steps,
        "published": of_steps["render"],
    }


def shares(parts: dict[str, float], policy: float, transport: float) -> list[list[str]]:
    """Of the time from one step to the next, one environment alone: where it goes."""
    rest = parts["step"] - parts["render"] - parts["physics"]
    seconds = dict(zip(PARTS, (parts["render"], parts["physics"], rest, policy, transport), strict=True))
    whole = sum(seconds.values())
    return [[name, f"{1e3 * value:.1f} ms", f"{100 * value / whole:.1f} %"] for name, value in seconds.items()]


def estimate(step: float, published: float, transport: float, one: float, many: float, two_against_one: float) -> float:
    """Steps per second of CORES environments under one policy, over those of one environment with queries of one slot
    and a `render()` after every step, the published structure: the slower of the environments, each as slow beside the
    others as two were, and of the policy, which computes meanwhile."""
    together = CORES * (two_against_one / 2) / (step + transport)
    return min(together, CORES / many) * (step + published + one)


def main(rounds: int = 3) -> None:
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    policy, statistics = untrained()
    one = dataclasses.replace(PROTOCOL, episodes=2)
    pixels = one.image_size
    lines, two = episodes(policy, statistics, one, lambda: open_env(one.task, one.image_size), rounds)
    parts = step_parts(one.task, one.image_size, list(range(one.seed, one.seed + 3)))
    transport = transport_seconds(2, pixels, 7, steps=500)
    queries = {slots: query_seconds(policy, slots, 21, pixels) for slots in (1, one.slots, CORES)}
    faster = estimate(parts["step"], parts["published"], transport, queries[1], queries[CORES], two)
    about = (
        f"Generated by `python -m benchmarks.evaluation` on {datetime.date.today()}: {hardware_line()}, 1 thread per "
        f"process, load average {load:.1f} before it began; code version {CODE_VERSION}. {one.task.name}, two cameras "
        f"rendered at 128 pixels on the CPU and shown at {pixels}, tiny policy. Ratios are medians of {rounds} "
        "interleaved pairs with their interval."
    )
    told = (
        "Render is what ManiSkill's `get_obs` takes, physics its `_step_action`. The published evaluator's `render()` "
        f"after every step, {1e3 * parts['published']:.1f} ms, is left out here on CPU physics: it changes nothing; "
        "transport is a step of an environment that does nothing, in a process of its own, less the time in it."
    )
    guess = (
        f"**Estimate, not measured:** {CORES} environments on {CORES} cores would make {faster:.0f} times the steps of "
        "one environment with queries of one slot and that `render()`, if every core were as fast beside the others as "
        "two are here and the policy, as fast as here, had a core of its own. With a 7B policy on a GPU: not run."
    )
    text = "\n".join(
        [
            *("# Speed of evaluation", "", about, ""),
            *(f"## Whole episodes, {one.episodes} per call, {one.slots} slots", ""),
            *table(["", "second", "first", "speed-up"], lines),
            *("## Queries of the policy alone", ""),
            *table(["", "one by one", "batched", "speed-up"], batching(policy, 21, pixels)),
            *("## Where the time from one step to the next goes, one environment", ""),
            *table(["", "time", "share"], shares(parts, queries[one.slots], transport)),
            *(told, "", guess, ""),
        ]
    )
    write_atomically(HERE / "evaluation.md", text.encode())
    print(text)


if __name__ == "__main__":
    main()
