"""Latency of a query of MemoryVLA against CogACT, DDIM's steps, the compiled expert, and the orders of training.

python -m benchmarks.memoryvla                 size small on the CPU; prints the tables, writes benchmarks/memoryvla.md
python -m benchmarks.memoryvla memoryvla-7b    on a GPU; writes benchmarks/memoryvla-7b.md

Published for MemoryVLA at 7B on an RTX 4090: 0.187 s without memory, 0.194 s with a bank of 16 entries.

Legend: L capacity of the bank.
"""

from __future__ import annotations

import copy
import datetime
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import init_empty_weights
from torch import Tensor

from benchmarks.pairs import compare, median_interval, table
from benchmarks.query import draw_weights
from muvla.config import BudgetConfig, Cell, DataConfig, DatasetConfig, MemoryConfig, ModelConfig, TaskConfig
from muvla.config.expert import get_expert
from muvla.config.serialization import replace as replace_fields
from muvla.config.sizes import get_size
from muvla.data.collect import collect
from muvla.data.store import EpisodeStore
from muvla.envs.phases import Phase
from muvla.errors import MuvlaError
from muvla.memory.registry import build_memory
from muvla.models.action_expert import ActionExpert
from muvla.models.compilation import require_compiler
from muvla.models.policy import Interface, Policy, dimensions_of
from muvla.recurrence import Moment, Recurrence
from muvla.training.trainer import Trainer
from muvla.utils.io import write_atomically
from muvla.utils.provenance import CODE_VERSION, hardware_line

HERE = Path(__file__).parent
GPU_SIZE = "memoryvla-7b"
EXPERT_OF_SIZE = {"tiny": "tiny", "small": "DiT-S", GPU_SIZE: "DiT-L"}
CAPACITIES = (16, 256)
STEPS, PUBLISHED_STEPS = (5, 20, 50), 10
CHUNK, TEXT, ROUNDS = 16, 35, 9
DATASET = DatasetConfig(TaskConfig("RecallPosition3-v0"), episodes=40)
SLOTS, WINDOW = 8, 16  # of a training
GROUPS = {"data.order": "grouped", "data.group": WINDOW, "data.group_padding": "repeat"}


def bank(capacity: int) -> MemoryConfig:
    return MemoryConfig("bank", place="condition", capacity=capacity)


def random_policies(size: str, device: str) -> dict[str, Policy]:
    """Return CogACT, and MemoryVLA at each capacity, with random weights; towers and language model are shared."""
    memories = {"none": MemoryConfig()} | {f"L = {capacity}": bank(capacity) for capacity in CAPACITIES}
    model = ModelConfig(
        get_size(size),
        CHUNK,
        head="expert",
        causal=True,
        proprio=False,
        expert=get_expert(EXPERT_OF_SIZE[size]),
        precision="bfloat16" if device == "cuda" else "float32",
    )
    interface = Interface(cameras=1, proprio_dim=1, action_dim=7, text=TEXT, text_padded=False)
    policies: dict[str, Policy] = {}
    for name, memory in memories.items():
        with init_empty_weights(include_buffers=False):
            policy = Policy(model, build_memory(memory, dimensions_of(model, interface)), interface)
        if policies:
            policy.vision, policy.language = policies["none"].vision, policies["none"].language
        policies[name] = draw_weights(policy, device).eval()
    return policies


class Query:
    """A call answers one query of one slot, in an episode whose bank is full."""

    def __init__(self, policy: Policy, head: ActionExpert | None = None, steps: int = PUBLISHED_STEPS):
        """Fills the bank with random entries.

        Args:
            policy: the policy.
            head: expert in place of the policy's; None is the policy's.
            steps: levels that DDIM visits.
        """
        self.policy, self.head = policy, head or policy.head
        self.config = replace(self.head.config, sampled_steps=steps)
        self.recurrence, self.ticks = Recurrence(policy, 1), 0
        self.device = next(policy.parameters()).device
        pixels = policy.config.size.image_size
        self.images = torch.zeros(1, 1, 3, pixels, pixels, dtype=torch.uint8, device=self.device)
        self.ids = torch.ones(1, TEXT, dtype=torch.long, device=self.device)
        self()
        for name, leaf in self.recurrence.state.items():
            if leaf.is_floating_point():
                leaf.normal_()
            elif name == "length":
                leaf.fill_(policy.memory.config.capacity)

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """Returns the normalised actions (1, H, A)."""
        self.policy.head, self.head.config = self.head, self.config
        proprio, lengths = (torch.zeros(1, 1, device=self.device), torch.tensor([TEXT], device=self.device))
        encoded = self.policy.encode(self.images, proprio, self.ids, lengths)
        moment = Moment([self.ticks], [Phase.DELAY], ["0"], [0])
        output, _ = self.recurrence.tick(encoded, torch.tensor([self.ticks == 0], device=self.device), moment)
        self.ticks += 1
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return output.actions


def latency_line(name: str, left: Query, right: Query, rounds: int) -> list[str]:
    """Return [name, median time of the left side, of the right side, right over left with the median's interval].

    On a CPU the processor's time is measured, so that other work on the machine does not count.

    Args:
        name: first entry of the line.
        left, right: the two calls.
        rounds: pairs.
    """
    pairs = compare(left, right, rounds, time.perf_counter if left.device.type == "cuda" else time.process_time)
    ratio = pairs.alternative / pairs.baseline
    low, high = median_interval(ratio)
    times = [f"{1000 * np.median(seconds):.1f} ms" for seconds in (pairs.baseline, pairs.alternative)]
    return [name, *times, f"{np.median(ratio):.3f} [{low:.3f}, {high:.3f}]"]


def memory_rows(policies: dict[str, Policy], rounds: int = ROUNDS) -> list[list[str]]:
    """Return a line per capacity: a query without memory against a query with a full bank."""
    none = Query(policies["none"])
    return [
        latency_line(f"none against {name}", none, Query(policy), rounds)
        for name, policy in policies.items()
        if name != "none"
    ]


def step_rows(policy: Policy, rounds: int = ROUNDS) -> list[list[str]]:
    """Return a line per number of levels that DDIM visits: against the published 10."""
    published = Query(policy)
    return [
        latency_line(f"{PUBLISHED_STEPS} levels against {steps}", published, Query(policy, steps=steps), rounds)
        for steps in STEPS
    ]


def compile_expert(head: ActionExpert, backend: str | Callable = "inductor") -> ActionExpert:
    """Return a copy whose blocks are compiled when they first run."""
    torch.compiler.reset()
    compiled = copy.deepcopy(head)
    for block in compiled.blocks:
        block.compile(backend=backend, dynamic=False, fullgraph=True)
    return compiled


def compiled_rows(policy: Policy, rounds: int = ROUNDS) -> list[list[str]]:
    """Return one line: a query whose expert is eager against a query whose expert's blocks are compiled."""
    name = "eager expert against compiled expert"
    try:
        require_compiler(next(policy.parameters()).device.type)
    except MuvlaError as error:
        return [[name, "–", "–", f"not run: {error.got}"]]
    eager = policy.head
    return [latency_line(name, Query(policy, eager), Query(policy, compile_expert(eager)), rounds)]


def order_rows(store: EpisodeStore, rounds: int = ROUNDS) -> list[list[str]]:
    """Return a line per policy at size tiny: [policy, frames/s of streams, frames/s of groups, ratio]."""
    rows = []
    for name, memory in (("CogACT", MemoryConfig()), ("MemoryVLA, L = 16", bank(16))):
        cell = Cell(
            model=ModelConfig(
                get_size("tiny"), chunk=4, head="expert", causal=True, proprio=False, expert=get_expert("tiny")
            ),
            data=DataConfig(DATASET, tail="still", labels="recorded"),
            memory=memory,
            truncation=1,
            budget=BudgetConfig(slots=SLOTS, window=WINDOW, updates=1_000),
        )
        stream, group = (Trainer(replace_fields(cell, changes), store) for changes in ({}, GROUPS))
        pairs = compare(stream.step, group.step, rounds, time.process_time)
        rows.append([name, *pairs.line(SLOTS * WINDOW, "frames/s")])
    return rows


def tables(size: str, device: str, rounds: int) -> list[str]:
    """Return the tables of latencies as lines."""
    policies = random_policies(size, device)
    header = ["", "left side", "right side", "right / left"]
    bank_of_16 = policies[f"L = {CAPACITIES[0]}"]
    return [
        "## Memory",
        "",
        "Published at 7B on an RTX 4090: 187 ms without memory, 194 ms with L = 16, a ratio of 1.037.",
        "",
        *table(header, memory_rows(policies, rounds)),
        "## Levels of DDIM (L = 16)",
        "",
        *table(header, step_rows(bank_of_16, rounds)),
        "## Compilation of the expert (L = 16)",
        "",
        *table(header, compiled_rows(bank_of_16, rounds)),
    ]


def main(size: str = "small", rounds: int = ROUNDS, here: Path = HERE) -> int:
    device = "cuda" if size == GPU_SIZE else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        print(f"error: benchmarks.memoryvla {GPU_SIZE} was not run. The size needs a CUDA device")
        return 2
    torch.set_num_threads(1)
    lines = [
        f"# Latency of a query of MemoryVLA, size {size}",
        "",
        f"Generated by `python -m benchmarks.memoryvla {size}` on {datetime.date.today()}: {hardware_line()}, 1 "
        f"thread; code version {CODE_VERSION}; on {device}. The policy has random weights, one camera, a prompt of "
        f"{TEXT} tokens, H = {CHUNK}, the expert {EXPERT_OF_SIZE[size]} and guidance 1.5. One slot asks, and its bank "
        "is full. "
        f"Times and ratios are medians of {rounds} interleaved pairs, with the median's 95 % interval; a ratio above 1 "
        "means that the right side is slower." + (" Times are seconds of the processor." if device == "cpu" else ""),
        "",
        *tables(size, device, rounds),
    ]
    if device == "cpu":
        with tempfile.TemporaryDirectory() as folder:
            rows = order_rows(collect(DATASET, Path(folder)), rounds)
        lines += [
            f"## Training (size tiny, {SLOTS} slots, window of {WINDOW} frames, K = 1)",
            "",
            "Repeated frames of padded groups count as frames. A ratio above 1 means that groups are faster.",
            "",
            *table(["", "streams (`episodic`)", f"padded groups of {WINDOW}", "ratio"], rows),
            f"Size {GPU_SIZE}: not run. `python -m benchmarks.memoryvla {GPU_SIZE}` measures it on a GPU with 40 GB.",
            "",
        ]
    text = "\n".join(lines)
    write_atomically(here / ("memoryvla-7b.md" if device == "cuda" else "memoryvla.md"), text.encode())
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
