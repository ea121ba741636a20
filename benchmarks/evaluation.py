"""Speed of evaluation in the simulator: parallel environments, batched queries, the parts of a step's time.

python -m benchmarks.evaluation      prints the tables and writes benchmarks/evaluation.md (some minutes)

All times are in seconds.
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

from benchmarks.echo import Echo
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
PROTOCOL = get_protocol("mikasa-remember-color3-quick-rh@1")  # two slots, images of 64 pixels
CORES = 16  # cores and environments of the estimate
PARTS = ("render", "physics", "other of the environment", "policy", "transport")


def untrained(cameras: int = 2, proprio: int = 7, action: int = 7) -> tuple[Policy, Statistics]:
    """Build a policy with random parameters, and statistics.

    Random parameters take as much time as trained parameters, and only the time matters here.
    """
    policy = build_policy(base, Interface(cameras, proprio, action, text=40, text_padded=True)).eval()
    ends = ((-1.0,) * action, (1.0,) * action, (-1.0,) * proprio, (1.0,) * proprio)
    return policy, Statistics(*ends, action_mask=(True,) * action, data="none")


def episodes(
    policy: Policy, statistics: Statistics, protocol: Protocol, make: Callable[[], gymnasium.Env], rounds: int
) -> tuple[list[list[str]], float]:
    """Time episodes of two environments against a single environment, and of two ways to serve environments.

    The processes have already started, and every side runs the same episodes.

    Args:
        policy: the policy.
        statistics: of the policy's training data.
        protocol: its episodes are run.
        make: builds an environment.
        rounds: interleaved pairs.

    Returns:
        Lines in episodes per minute, and the ratio of two environments to a single environment.
    """
    seeds = range(protocol.seed, protocol.seed + protocol.episodes)
    # With infinite patience a rollout waits for all environments before every query.
    made = [
        Rollout(PolicyActor(policy, statistics, protocol), make, environments=n, patience=patience)
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
        ["2 environments against 1 environment", *side_by_side.line(60 * protocol.episodes, "episodes/min")],
        ["2 environments: serve the ready against wait for all", *serving.line(60 * protocol.episodes, "episodes/min")],
    ]
    return lines, float(np.median(side_by_side.speedup))


@torch.no_grad()
def query_seconds(policy: Policy, slots: int, rounds: int, pixels: int) -> float:
    """Return the median time of a whole query, including vision.

    Args:
        policy: the policy.
        slots: of the query.
        rounds: timed queries.
        pixels: side of the images.
    """
    call = _query(policy, slots, pixels)
    call()
    return float(np.median([_timed(call) for _ in range(rounds)]))


@torch.no_grad()
def batching(policy: Policy, rounds: int, pixels: int, slots: int = 8) -> list[list[str]]:
    single, batched = _query(policy, 1, pixels), _query(policy, slots, pixels)
    comparison = compare(lambda: [single() for _ in range(slots)], batched, rounds)
    return [[f"{slots} slots in one query against {slots} queries", *comparison.line(slots, "queries/s")]]


def _query(policy: Policy, slots: int, pixels: int) -> Callable[[], Any]:
    robot = policy.interface
    images = torch.randint(0, 256, (slots, robot.cameras, 3, pixels, pixels), dtype=torch.uint8)
    ids, lengths = policy.encode_text(["Touch the cube of the color shown at first."] * slots)
    proprio, memory = torch.zeros(slots, robot.proprio_dim), torch.randn(slots, base.memory.m, base.model.size.width)
    return lambda: policy.step(policy.encode(images, proprio, ids, lengths), memory)


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def transport_seconds(cameras: int, pixels: int, proprio: int, steps: int) -> float:
    """Return the time that a worker process adds to a step.

    Args:
        cameras: of the observation.
        pixels: side of the images.
        proprio: dimension of proprio and action.
        steps: timed steps.
    """
    env = WorkerEnv(partial(Echo, cameras, pixels, proprio))
    try:
        env.reset(seed=0)
        action = np.zeros(proprio, np.float32)
        return float(np.median([_timed(lambda: env.step(action)) - env.seconds for _ in range(steps)]))
    finally:
        env.close()


def step_parts(task: TaskConfig, image_size: int | None, seeds: list[int]) -> dict[str, float]:
    """Return the mean time of a simulator's step in this process, and of the parts of the step.

    The parts are the camera images, the physics and the whole step. `published` is the `render()` of the published
    evaluator after every step, which our step leaves out on CPU physics.
    """
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
    """Return the parts of the time between two steps of a single environment, in milliseconds and per cent."""
    rest = parts["step"] - parts["render"] - parts["physics"]
    seconds = dict(zip(PARTS, (parts["render"], parts["physics"], rest, policy, transport), strict=True))
    whole = sum(seconds.values())
    return [[name, f"{1e3 * value:.1f} ms", f"{100 * value / whole:.1f} %"] for name, value in seconds.items()]


def estimate(
    step: float, published: float, transport: float, query: float, batched_query: float, two_against_one: float
) -> float:
    """Estimate the speed-up of CORES environments with a shared policy over the published structure.

    The published structure has a single environment, queries of one slot and a `render()` after every step. The
    estimate takes the lower of two speeds. The first is the speed of the environments, each slowed as two environments
    slowed each other. The second is the speed of the policy, which computes at the same time.

    Args:
        step: seconds of an environment's step.
        published: seconds of the published evaluator's `render()`.
        transport: seconds that a worker process adds to a step.
        query: seconds of a query of one slot.
        batched_query: seconds of a query of CORES slots.
        two_against_one: speed-up of two environments over a single environment.

    Returns:
        The ratio of steps per second.
    """
    together = CORES * (two_against_one / 2) / (step + transport)
    return min(together, CORES / batched_query) * (step + published + query)


def main(rounds: int = 3) -> None:
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    policy, statistics = untrained()
    protocol = dataclasses.replace(PROTOCOL, episodes=2)
    task, pixels = protocol.task, protocol.image_size
    lines, two = episodes(policy, statistics, protocol, lambda: open_env(task, pixels), rounds)
    parts = step_parts(task, pixels, list(range(protocol.seed, protocol.seed + 3)))
    transport = transport_seconds(2, pixels, 7, steps=500)
    queries = {slots: query_seconds(policy, slots, 21, pixels) for slots in (1, protocol.slots, CORES)}
    faster = estimate(parts["step"], parts["published"], transport, queries[1], queries[CORES], two)
    about = (
        f"Generated by `python -m benchmarks.evaluation` on {datetime.date.today()}: {hardware_line()}, 1 thread per "
        f"process, load average {load:.1f} before the start; code version {CODE_VERSION}. The task is {task.name}, "
        f"with two cameras rendered at 128 pixels on the CPU and resized to {pixels}, and a tiny policy. Ratios are "
        f"medians of {rounds} interleaved pairs with the interval of the median."
    )
    legend = (
        "Render is the time of ManiSkill's `get_obs`, physics the time of `_step_action`. The published evaluator "
        f"calls `render()` after every step, {1e3 * parts['published']:.1f} ms. On CPU physics the call changes "
        "nothing and is left out here. Transport is the time that a worker process adds to a step "
        "of an environment without work."
    )
    guess = (
        f"**Estimate, not measured:** {CORES} environments on {CORES} cores would make {faster:.0f} times the steps of "
        "a single environment with queries of one slot and the published `render()`. The estimate assumes that every "
        "core is slowed as two cores are here, and that the policy, as fast as here, has a separate core. "
        "With a 7B policy on a GPU: not run."
    )
    text = "\n".join(
        [
            *("# Speed of evaluation", "", about, ""),
            *(f"## Whole episodes, {protocol.episodes} per call, {protocol.slots} slots", ""),
            *table(["", "baseline", "alternative", "speed-up"], lines),
            *("## Queries of the policy alone", ""),
            *table(["", "separate queries", "batched", "speed-up"], batching(policy, 21, pixels)),
            *("## Parts of the time between two steps, in a single environment", ""),
            *table(["", "time", "share"], shares(parts, queries[protocol.slots], transport)),
            *(legend, "", guess, ""),
        ]
    )
    write_atomically(HERE / "evaluation.md", text.encode())
    print(text)


if __name__ == "__main__":
    main()
