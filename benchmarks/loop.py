"""Speed of our training window against the structure of the published loop, at tiny and small size, and at 7B on a GPU.

python -m benchmarks.loop             prints the table and writes benchmarks/loop.md; minutes on a CPU

The published loop encodes a tick's images at the tick and runs the language model under a dense mask. The loop holds
the graphs of K ticks, including the towers' graphs, until the backward pass (spec 2.4). Our loop encodes a window's
images at once and runs the guard without a mask. Both loops make updates of W ticks of B slots for every K, with the
same gradient.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.memory import added_peak
from benchmarks.pairs import median_interval, table
from benchmarks.query import MEMORY, TEXT, random_policy
from muvla.config import Cell, DataConfig, DatasetConfig, LoraConfig, MemoryConfig, ModelConfig, TaskConfig
from muvla.config.sizes import get_size
from muvla.data.stream import Window
from muvla.envs.phases import Phase
from muvla.memory.contract import Dimensions
from muvla.memory.registry import build_memory
from muvla.models.init import initialise
from muvla.models.lora import add_adapters
from muvla.models.policy import Interface, Policy
from muvla.recurrence import Recurrence
from muvla.training.distributed.base import SINGLE_PROCESS
from muvla.training.trainer import Trainer
from muvla.utils.io import write_atomically
from muvla.utils.provenance import CODE_VERSION, hardware_line

HERE = Path(__file__).parent
TRUNCATIONS = (1, 2, 8)
WINDOW = 8
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # FLOP/s of bfloat16 products, from data sheets


@dataclass(frozen=True)
class Setting:
    """A model size, with the batch, the memory width, the prompt length and the rounds of its measurement."""

    name: str
    slots: int
    m: int
    text: int
    rounds: int
    adapters: bool = False


TINY, SMALL = Setting("tiny", 16, 4, 6, 15), Setting("small", 1, 16, 12, 3)
LARGE = Setting("openvla-7b", 4, MEMORY, TEXT, 5, adapters=True)


class Ours(Trainer):
    """The trainer's window on a given policy and given frames, without reading a dataset."""

    attention = "split"

    def __init__(self, policy: Policy, cell: Cell, device: str):
        self.policy, self.device, self.cell = policy, device, cell
        self.ranks, self.slots, self.diagnosis, self.one_pass = SINGLE_PROCESS, range(cell.budget.slots), None, False
        self.recurrence = Recurrence(policy, cell.budget.slots)
        self.parameters = [p for p in policy.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, fused=True)

    def update(self, window: Window, truncation: int) -> None:
        self.cell = replace(self.cell, truncation=truncation)
        self.policy.config = replace(self.policy.config, attention=self.attention)
        self.backward(window)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.device == "cuda":
            torch.cuda.synchronize()


class Published(Ours):
    """The structure of the published loop."""

    attention = "dense"

    def backward(self, window: Window) -> float:
        loss, total = 0.0, 0.0
        for t in range(len(window.is_first)):
            given = (window.images, window.proprio, window.text_ids, window.text_lengths)
            encoded = self.policy.encode(*(self.to_device(tensor[t]) for tensor in given))
            label, weight, is_first = (self.to_device(x[t]) for x in (window.label, window.weight, window.is_first))
            output, _ = self.recurrence.tick(encoded, is_first, self.get_moment(window, t))
            loss = loss + ((output.actions - label).abs() * weight[..., None]).sum()
            if (t + 1) % self.cell.truncation == 0:
                total += self.end_block(loss / window.label.numel())
                loss = 0.0
        return total


class NoVision(nn.Module):
    """A vision without computation, in place of towers and projector."""

    def __init__(self, tokens: Tensor):
        super().__init__()
        self.tokens = tokens  # (V·P, D)

    def features(self, images: Tensor, *_) -> Tensor:
        return images

    def project(self, images: Tensor) -> Tensor:
        return self.tokens.expand(len(images), -1, -1)


def random_window(policy: Policy, setting: Setting) -> Window:
    """Build a window of random numbers, whose episodes start at the first tick."""
    generator = torch.Generator().manual_seed(0)
    ticks = (WINDOW, setting.slots)
    pixels, robot, chunk = policy.config.size.image_size, policy.interface, policy.config.chunk
    is_first = torch.zeros(ticks, dtype=torch.bool)
    is_first[0] = True
    images = torch.randint(0, 256, (*ticks, robot.cameras, 3, pixels, pixels), dtype=torch.uint8, generator=generator)
    step = np.arange(WINDOW)[:, None].repeat(setting.slots, axis=1)
    zeros = np.zeros(ticks, dtype=np.int64)
    return Window(
        images=images,
        proprio=torch.randn(*ticks, robot.proprio_dim, generator=generator),
        text_ids=torch.ones(*ticks, robot.text, dtype=torch.int64),
        text_lengths=torch.full(ticks, robot.text),
        label=torch.randn(*ticks, chunk, robot.action_dim, generator=generator),
        weight=torch.ones(*ticks, chunk),
        is_first=is_first,
        is_last=zeros == 1,
        action_is_pad=np.zeros((*ticks, chunk), dtype=bool),
        label_is_executed=None,
        phase=zeros + int(Phase.DECISION),
        starts_decision=step == 0,
        episode=zeros,
        tick=step,
        frame=step,
        visit=zeros,
    )


def build(setting: Setting, device: str) -> tuple[Policy, Cell]:
    """Build a policy with random weights. All weights are trained; at 7B adapters, head, proprio and memory alone."""
    anatomy = get_size(setting.name)
    if setting.adapters:
        policy = random_policy(anatomy, device)
        add_adapters(policy, anatomy, LoraConfig(rank=32, alpha=16.0), seed=0)
        policy.to(device).checkpoint_gradients()
    else:
        config = ModelConfig(anatomy, chunk=4, reserve=setting.m)
        robot = Interface(cameras=2, proprio_dim=2, action_dim=2, text=setting.text, text_padded=False)
        policy = Policy(config, build_memory(MemoryConfig("tokens", setting.m), Dimensions(anatomy.width)), robot)
        initialise(policy, seed=0)
        policy.to(device)
    return policy, _cell(policy.config, setting)


def _cell(config: ModelConfig, setting: Setting) -> Cell:
    data = DataConfig(DatasetConfig(TaskConfig("RecallPosition3-v0")))
    cell = Cell(config, data, MemoryConfig("tokens", setting.m))
    return replace(cell, budget=replace(cell.budget, slots=setting.slots, window=WINDOW))


def in_turn(calls: list[Callable[[], object]], rounds: int) -> np.ndarray:
    """Return the seconds (rounds, calls) of calls made in turn, after a warm-up call of each.

    The order of the calls reverses every round.
    """
    for call in calls:
        call()
    seconds = np.empty((rounds, len(calls)))
    for i in range(rounds):
        for j in range(len(calls)) if i % 2 == 0 else reversed(range(len(calls))):
            started = time.perf_counter()
            calls[j]()
            seconds[i, j] = time.perf_counter() - started
    return seconds


def rows(setting: Setting, device: str) -> list[list[str]]:
    """Return lines [size and K, published, ours, ratio, vision's share in each loop].

    On a GPU a line also has utilisation and peak memory.
    """
    policy, cell = build(setting, device)
    window, frames = random_window(policy, setting), WINDOW * setting.slots
    vision, blind = policy.vision, NoVision(torch.randn(policy.layout().vision, policy.config.size.width).to(device))
    loops = [loop_type(policy, cell, device) for loop_type in (Published, Ours)]
    lines = []
    for K in TRUNCATIONS:

        def run(loop: Ours, seeing: bool, K: int = K) -> None:
            policy.vision = vision if seeing else blind
            loop.update(window, K)

        calls = [lambda loop=loop, seeing=seeing: run(loop, seeing) for loop in loops for seeing in (True, False)]
        published, published_blind, ours, ours_blind = in_turn(calls, setting.rounds).T
        low, high = median_interval(published / ours)
        shares = (_share(published, published_blind), _share(ours, ours_blind))
        line = [
            f"{setting.name}, K = {K}",
            *(f"{frames / np.median(s):,.3g} frames/s" for s in (published, ours)),
            f"{np.median(published / ours):.2f}× [{low:.2f}, {high:.2f}]",
            *shares,
        ]
        if device == "cuda":
            policy.vision = vision
            done = frames * model_flops(policy) / np.array([np.median(published), np.median(ours)])
            peaks = [added_peak(lambda loop=loop, K=K: run(loop, True, K), device) for loop in loops]
            line += [" → ".join(map(_utilisation, done)), " → ".join(f"{peak:,.0f} MB" for peak in peaks)]
        lines.append(line)
    return lines


def _share(whole: np.ndarray, blind: np.ndarray) -> str:
    shares = 1 - blind / whole
    low, high = median_interval(shares)
    return f"{np.median(shares):.0%} [{low:.0%}, {high:.0%}]"


def _utilisation(flops: float) -> str:
    peaks = [peak for name, peak in PEAK.items() if name in torch.cuda.get_device_name()]
    return f"{flops / peaks[0]:.0%}" if peaks else f"{flops / 1e12:.0f} TFLOP/s"


def model_flops(policy: Policy) -> float:
    """Return the FLOP of a frame's forward and backward pass, without the recomputation by checkpointing.

    A weight costs two FLOP per token for the product and two for the gradient of the input. A trained weight costs two
    more for its gradient. Attention is counted in the same way.
    """
    anatomy, layout = policy.config.size, policy.layout()
    images, length = policy.interface.cameras, layout.length
    tokens = {
        "language.": length,
        "vision.projector.": images * anatomy.patches,
        "head.": layout.action,
        "vision.dino.": images * (anatomy.patches + 5),
        "vision.siglip.": images * anatomy.patches,
    }
    unread = (
        f"vision.dino.encoder.layer.{anatomy.dino.layers - 1}.",
        f"vision.siglip.encoder.layers.{anatomy.siglip.layers - 1}.",
    )
    total = 0.0
    for name, module in policy.named_modules():
        if isinstance(module, nn.Linear) and not name.startswith(unread):
            seen = next((n for part, n in tokens.items() if name.startswith(part)), 1)
            total += (6 if module.weight.requires_grad else 4) * module.weight.numel() * seen
    attended = [(length, 1, anatomy.width, anatomy.layers)]
    attended += [
        (anatomy.patches + extra, images, tower.width, tower.layers - 1)
        for tower, extra in ((anatomy.dino, 5), (anatomy.siglip, 0))
    ]
    return total + sum(12 * n * n * batch * width * layers for n, batch, width, layers in attended)


def main(settings: tuple[Setting, ...] = (TINY, SMALL), here: Path = HERE) -> None:
    torch.set_num_threads(1)
    measured = [row for setting in settings for row in rows(setting, "cpu")]
    header = ["size", "published structure", "ours", "ratio", "vision's share, published", "vision's share, ours"]
    lines = [
        "# The training loop",
        "",
        f"Generated by `python -m benchmarks.loop` on {datetime.date.today()}: {hardware_line()}, 1 thread; code "
        f"version {CODE_VERSION}. The updates have W = {WINDOW} ticks and read no frames. The numbers are medians of "
        + ", ".join(f"{s.rounds} rounds of {s.slots} slots ({s.name})" for s in settings)
        + ", taken in turn, with the 95 % interval of the median, which for three rounds is the range. Vision's share "
        "is the share of time that a loop saves without towers and projector.",
        "",
        *table(header, measured),
    ]
    if torch.cuda.is_available():
        lines += table([*header, "model FLOP utilisation", "peak memory beside weights"], rows(LARGE, "cuda"))
    else:
        lines += ["At 7B with adapters, on a GPU: not run.", ""]
    text = "\n".join(lines)
    write_atomically(here / "loop.md", text.encode())
    print(text)


if __name__ == "__main__":
    main()
