"""Speed at size `tiny`: vision once per window, batched queries, attention backends of the guard.

python -m benchmarks.tiny            prints the tables and writes benchmarks/tiny.md
"""

from __future__ import annotations

import datetime
import tempfile
from pathlib import Path

import torch

from benchmarks.pairs import compare, table
from experiments.recall_quick.study import base
from muvla.config.serialization import replace
from muvla.data.collect import collect
from muvla.data.store import EpisodeStore
from muvla.data.stream import Window
from muvla.models.policy import Encoded
from muvla.training.trainer import Trainer
from muvla.utils.io import write_atomically
from muvla.utils.provenance import CODE_VERSION, hardware_line

HERE = Path(__file__).parent
CHUNK = 4  # H of every measurement, so that the ACTION segment is not trivially short


class StepByStep(Trainer):
    """The structure of the published loop, which encodes the images of a tick at the tick."""

    def backward(self, window: Window) -> float:
        W = len(window.is_first)
        K, total = self.cell.truncation, 0.0
        encoded = None
        for block in range(W // K):
            loss = torch.zeros(())
            for t in range(block * K, (block + 1) * K):
                encoded = self.policy.encode(
                    window.images[t], window.proprio[t], window.text_ids[t], window.text_lengths[t]
                )
                output, _ = self.recurrence.tick(encoded, window.is_first[t], self.get_moment(window, t))
                loss = loss + ((output.actions - window.label[t]).abs() * window.weight[t][..., None]).sum()
            loss = loss / window.label.numel()
            loss.backward()
            self.recurrence.truncate()
            total += loss.item()
        return total


def vision_once(store: EpisodeStore) -> list[list[str]]:
    """Time whole updates: data, forward, backward, clipping and optimizer."""
    rows = []
    for K in (1, 2, 8):
        cell = replace(base, {"model.chunk": CHUNK, "truncation": K})
        comparison = compare(StepByStep(cell, store).step, Trainer(cell, store).step)
        rows.append([f"K={K}", *comparison.line(cell.budget.frames_per_update, "frames/s")])
    return rows


def _frames(trainer: Trainer, slots: int) -> tuple[Encoded, torch.Tensor]:
    """Return encoded frames of `slots` slots, and a memory (slots, m, D)."""
    generator = torch.Generator().manual_seed(0)
    size = trainer.cell.model.size
    images = torch.randint(
        0, 256, (slots, 2, 3, size.image_size, size.image_size), dtype=torch.uint8, generator=generator
    )
    ids, lengths = trainer.policy.encode_text(["Touch the marked disc."] * slots)
    encoded = trainer.policy.encode(images, torch.zeros(slots, 2), ids, lengths)
    return encoded, torch.randn(slots, trainer.cell.memory.m, size.width, generator=generator)


@torch.no_grad()
def queries(store: EpisodeStore) -> list[list[str]]:
    """Time whole queries, including vision: n slots in one forward pass against n forward passes."""
    trainer = Trainer(replace(base, {"model.chunk": CHUNK}), store)
    policy = trainer.policy.eval()
    size = policy.config.size.image_size
    rows = []
    for slots in (1, 8, 32):
        images = torch.randint(0, 256, (slots, 2, 3, size, size), dtype=torch.uint8)
        proprio = torch.zeros(slots, 2)
        ids, lengths = policy.encode_text(["Touch the marked disc."] * slots)
        memory = torch.randn(slots, trainer.cell.memory.m, policy.config.size.width)

        def batched(images=images, proprio=proprio, ids=ids, lengths=lengths, memory=memory) -> None:
            policy.step(policy.encode(images, proprio, ids, lengths), memory)

        def single(images=images, proprio=proprio, ids=ids, lengths=lengths, memory=memory, slots=slots) -> None:
            for i in range(slots):
                slot = slice(i, i + 1)
                policy.step(policy.encode(images[slot], proprio[slot], ids[slot], lengths[slot]), memory[slot])

        rows.append([f"{slots} slots", *compare(single, batched).line(slots, "queries/s")])
    return rows


def guard(store: EpisodeStore) -> list[list[str]]:
    """Time language model and head at 32 slots, with and without backward: `context` per backend against no guard."""
    rows = []
    free = Trainer(replace(base, {"model.chunk": CHUNK, "model.guard": "full"}), store)
    encoded, memory = _frames(free, 32)
    encoded = encoded.leaves()
    for backend in ("split", "dense"):
        guarded = Trainer(
            replace(base, {"model.chunk": CHUNK, "model.guard": "context", "model.attention": backend}), store
        )
        for name, backward in (("forward", False), ("with backward", True)):

            def run(trainer: Trainer, backward: bool = backward) -> None:
                with torch.set_grad_enabled(backward):
                    loss = trainer.policy.step(encoded, memory).actions.sum()
                if backward:
                    loss.backward()
                    trainer.optimizer.zero_grad(set_to_none=True)

            comparison = compare(lambda: run(free), lambda t=guarded: run(t), rounds=41)
            rows.append([f"{backend}, {name}", *comparison.line(32, "queries/s")])
    return rows


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = collect(base.data.dataset, Path(folder))
        lines = [
            "# Speed at tiny size",
            "",
            f"Generated by `python -m benchmarks.tiny` on {datetime.date.today()}: {hardware_line()}, 1 thread; "
            f"code version {CODE_VERSION}. Ratios are medians of interleaved pairs with the 95 % interval of the "
            f"median. H = {CHUNK}.",
            "",
            "## Training: vision once per window of W = 8 ticks against once per tick (B = 16)",
            "",
            *table(["", "once per tick", "once per window", "speed-up"], vision_once(store)),
            "## Queries: n slots in one forward pass against n forward passes",
            "",
            *table(["", "n passes", "batched", "speed-up"], queries(store)),
            "## Guard `context` against no guard (`full`), 32 slots; a speed-up above 1 is faster than no guard",
            "",
            *table(["", "no guard", "guarded", "speed-up"], guard(store)),
        ]
    text = "\n".join(lines)
    write_atomically(HERE / "tiny.md", text.encode())
    print(text)


if __name__ == "__main__":
    main()
