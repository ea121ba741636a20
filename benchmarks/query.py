"""Cost of a query and of a LoRA training step: latency by batch, frames per second, peak memory.

python -m benchmarks.query             on a GPU, at openvla-7b; prints the table and writes benchmarks/query.md

The policy has random weights in bfloat16, two cameras, proprio, m = 64 memory tokens, chunks of 8 × 7 and a prompt of
35 tokens. The published evaluation took 0.112 s per query on an A100 with two images, proprio and no memory.
"""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from accelerate import init_empty_weights
from torch import nn

from benchmarks.memory import added_peak
from benchmarks.pairs import median_interval, table
from muvla.config import LoraConfig, MemoryConfig, ModelConfig
from muvla.config.model import SizeConfig
from muvla.config.sizes import get_size
from muvla.memory.contract import Dimensions
from muvla.memory.registry import build_memory
from muvla.models.lora import TRAINED_IN_FULL, add_adapters
from muvla.models.policy import Encoded, Interface, Policy
from muvla.utils.io import write_atomically
from muvla.utils.provenance import CODE_VERSION, hardware_line

HERE = Path(__file__).parent
BATCHES, ROUNDS = (1, 8, 32), 21
SLOTS, TICKS = 4, 2  # training step: the published batch, K = W = 2
MEMORY, TEXT, CHUNK = 64, 35, 8


def random_policy(anatomy: SizeConfig, device: str) -> Policy:
    """Build a policy with random weights on the device."""
    with init_empty_weights(include_buffers=False):
        policy = Policy(
            ModelConfig(anatomy, chunk=CHUNK, precision="bfloat16", memory_positions="shift"),
            build_memory(MemoryConfig("tokens", MEMORY), Dimensions(anatomy.width)),
            Interface(cameras=2, proprio_dim=7, action_dim=7, text=TEXT, text_padded=False),
        )
    return draw_weights(policy, device)


def draw_weights(policy: Policy, device: str) -> Policy:
    """Give every parameter of the meta device random values on the device, and return the policy.

    7 B parameters in float32 would not fit beside their copies. In a policy that computes in bfloat16, matrices are
    bfloat16. Parameters that may be trained in full are float32, as are norms and biases.
    """
    for name, parameter in policy.named_parameters():
        if not parameter.is_meta:
            continue
        matrix = parameter.ndim > 1 and not name.startswith(TRAINED_IN_FULL)
        dtype = torch.bfloat16 if matrix and policy.config.precision == "bfloat16" else torch.float32
        values = torch.empty(parameter.shape, device=device, dtype=dtype)
        module, _, leaf = name.rpartition(".")
        owner = policy.get_submodule(module)
        setattr(owner, leaf, nn.Parameter(values.normal_(0.0, 0.02), requires_grad=parameter.requires_grad))
    return policy.to(device)  # moves the buffers


def observations(policy: Policy, n: int, device: str) -> tuple[torch.Tensor, ...]:
    pixels = policy.config.size.image_size
    images = torch.randint(0, 256, (n, 2, 3, pixels, pixels), dtype=torch.uint8, device=device)
    ids = torch.zeros(n, TEXT, dtype=torch.long, device=device)
    return images, torch.zeros(n, 7, device=device), ids, torch.full((n,), TEXT, device=device)


def query(policy: Policy, batch: int, device: str) -> Callable[[], None]:
    """Return a call that makes a query from frames to actions, as in an evaluation."""
    given = observations(policy, batch, device)

    @torch.no_grad()
    def run() -> None:
        policy.step(policy.encode(*given), policy.memory.read(policy.memory.init_state(batch)).tokens)
        _wait(device)

    return run


def training_step(policy: Policy, device: str) -> Callable[[], None]:
    """Return a call that updates adapters, head, proprio and memory, with gradient checkpointing.

    The window has TICKS ticks of SLOTS slots in one truncation block.
    """
    add_adapters(policy, policy.config.size, LoraConfig(rank=32, alpha=16.0), seed=0)
    policy.to(device).checkpoint_gradients()
    trained = [p for p in policy.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-4, fused=True)
    given = observations(policy, SLOTS * TICKS, device)
    label = torch.zeros(SLOTS, CHUNK, 7, device=device)

    def run() -> None:
        encoded = policy.encode(*given)
        state, loss = policy.memory.init_state(SLOTS), torch.zeros((), device=device)
        for tick in _ticks(encoded):
            out = policy.step(tick, policy.memory.read(state).tokens)
            state = policy.memory.write(state, out.taps)
            loss = loss + (out.actions - label).abs().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _wait(device)

    return run


def _ticks(encoded: Encoded) -> Iterator[Encoded]:
    for t in range(TICKS):
        yield encoded[t * SLOTS : (t + 1) * SLOTS]


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(run: Callable[[], None], rounds: int) -> np.ndarray:
    """Return the seconds of every call, after two warm-up calls."""
    taken = []
    for _ in range(rounds + 2):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return np.array(taken[2:])


def rows(policy: Policy, device: str, rounds: int = ROUNDS) -> list[list[str]]:
    """Return lines [name, median time with interval, rate, peak memory beside weights and optimizer]."""
    lines = []
    for batch in BATCHES:
        run = query(policy, batch, device)
        lines.append(_row(f"query, batch {batch}", run, batch, "queries/s", device, rounds))
    step = training_step(policy, device)
    lines.append(_row("LoRA training step, K = 2, 4 slots", step, SLOTS * TICKS, "frames/s", device, rounds))
    return lines


def _row(name: str, run: Callable[[], None], work: int, unit: str, device: str, rounds: int) -> list[str]:
    taken = seconds(run, rounds)
    low, high = median_interval(taken)
    return [
        name,
        f"{np.median(taken):.3f} s [{low:.3f}, {high:.3f}]",
        f"{work / np.median(taken):.1f} {unit}",
        f"{added_peak(run, device):,.0f} MB",
    ]


def main() -> int:
    if not torch.cuda.is_available():
        print("error: benchmarks.query was not run. It measures openvla-7b, which needs a CUDA device")
        return 2
    lines = [
        "# Cost of a query and of a training step at 7B",
        "",
        f"Generated by `python -m benchmarks.query` on {datetime.date.today()}: {hardware_line()}; code version "
        f"{CODE_VERSION}. The policy has random weights, bfloat16, two cameras, proprio, m = {MEMORY} and a prompt "
        f"of {TEXT} tokens. Times are the median of {ROUNDS} calls with the median's 95 % interval. Memory is the peak "
        "beside weights and optimizer.",
        "",
        *table(["", "time", "rate", "memory"], rows(random_policy(get_size("openvla-7b"), "cuda"), "cuda")),
    ]
    text = "\n".join(lines)
    write_atomically(HERE / "query.md", text.encode())
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
